// All kernels as one program.
#include "crop.cu"
#include "paste.cu"
#include "refine.cu"
#include "step.cu"
#include "warp.cu"
