// From a part of a frame to what a network sees.
#include "common.h"

struct Take {
    // [side, side, 3], the frame's own colours.
    u8* out;
    // Where each row begins in the cut of the first channel, and in that of the other two.
    const Place *lines, *lines_of_pairs;
    Plane planes[3];
    Cut cut, cut_of_pairs;
    int side, sharp;
};

// Crop::take, and Crop::take_sharp where `sharp` is 1.
KERNEL(take, Take) {
    int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y;
    if (x >= a.side || y >= a.side) return;
    u8* out = a.out + ((i64)y * a.side + x) * 3;
    for (int c = 0; c < 3; c++) {
        const Cut& cut = c == 0 ? a.cut : a.cut_of_pairs;
        Place at = along(cut, (c == 0 ? a.lines : a.lines_of_pairs)[y], x);
        out[c] = a.sharp ? byte(cubic(a.planes[c], cut, at, a.planes[c].step < 3) + 0.5f) : (u8)((linear(a.planes[c], cut, at) + 128) >> 8);
    }
}

struct Planar {
    const u8* crop;
    // Planes of R, G, B, [3, side, side], and the same where it is not 0 with all but what the mask keeps hidden.
    float *out, *masked;
    // [side, side].
    const float* mask;
    Matrix matrix;
    // The crop's side, the planes', and the part of the crop that they show.
    int size, side;
    float x, y, width, height;
    // Of each value 0..1; and what is there where something is hidden.
    float scale, offset, hidden;
};

__device__ __forceinline__ void show(const Planar& a, int x, int y, int c, float v) {
    i64 at = ((i64)c * a.side + y) * a.side + x;
    v = v * a.scale + a.offset;
    a.out[at] = v;
    if (!a.masked) return;
    float kept = a.mask[(i64)y * a.side + x];
    a.masked[at] = v * kept + a.hidden * (1.0f - kept);
}

// Crop::to_rgb_planar.
KERNEL(planar, Planar) {
    int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y;
    if (x >= a.side || y >= a.side) return;
    const u8* p = a.crop + ((i64)y * a.side + x) * 3;
    for (int c = 0; c < 3; c++) show(a, x, y, c, unit_rgb(a.matrix, p, c));
}

// Where a sample of a pixel lies along a line of the crop: the pixel before it, and the part of the way to the next.
__device__ __forceinline__ int before(float from, float length, int i, float part, int side, int size, float* way) {
    float p = clampf((from + ((float)i + part) / (float)side * length) * (float)size - 0.5f, 0.0f, (float)(size - 1));
    int low = (int)p, most = size < 2 ? 0 : size - 2;
    low = low < most ? low : most;
    *way = p - (float)low;
    return low;
}

// inset::cut: the mean of four linear samples a pixel.
KERNEL(inset_cut, Planar) {
    int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y;
    if (x >= a.side || y >= a.side) return;
    float sums[3] = {0.0f, 0.0f, 0.0f};
    for (int j = 0; j < 2; j++) {
        float down;
        int row = before(a.y, a.height, y, 0.25f + 0.5f * (float)j, a.side, a.size, &down);
        const u8* upper = a.crop + (i64)row * a.size * 3;
        const u8* lower = a.crop + (i64)(row + 1 < a.size ? row + 1 : row) * a.size * 3;
        for (int i = 0; i < 2; i++) {
            float across;
            int column = before(a.x, a.width, x, 0.25f + 0.5f * (float)i, a.side, a.size, &across);
            int here = column * 3, next = (column + 1 < a.size ? column + 1 : column) * 3;
            for (int c = 0; c < 3; c++) {
                float u = unit_rgb(a.matrix, upper + here, c), l = unit_rgb(a.matrix, lower + here, c);
                u = u + (unit_rgb(a.matrix, upper + next, c) - u) * across;
                l = l + (unit_rgb(a.matrix, lower + next, c) - l) * across;
                sums[c] += u + (l - u) * down;
            }
        }
    }
    for (int c = 0; c < 3; c++) show(a, x, y, c, sums[c] / 4.0f);
}
