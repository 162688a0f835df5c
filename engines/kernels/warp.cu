// The thin-plate warp of `compact`.
#include "common.h"

struct Point {
    float x, y;
};

struct Nodes {
    // [cells + 1, cells + 1].
    Point* nodes;
    // 1 where a cell is folded.
    int* folded;
    // The spline: control points, their weights, and for each coordinate offset, factor of x and factor of y.
    const float *x, *y, *wx, *wy;
    float affine[6];
    int count, cells;
    // Columns and rows of cells that are used.
    int columns[2], rows[2];
};

// ln of a positive normal number to 1e-7, as in engines/src/geometry/spline.rs.
__device__ __forceinline__ float logarithm(float v) {
    u32 bits = __float_as_uint(v) - 0x3f3504f3u;
    float exponent = (float)((int)bits >> 23), m = __uint_as_float((bits & 0x007fffffu) + 0x3f3504f3u);
    float s = (m - 1.0f) / (m + 1.0f), q = s * s;
    float series = 2.0f + q * (2.0f / 3.0f + q * (2.0f / 5.0f + q * (2.0f / 7.0f + q * (2.0f / 9.0f))));
    return exponent * 0.693147180559945309417f + s * series;
}

// Lattice::sampled: the spline at the nodes; outside of what is used a node stays where it is.
KERNEL(spline_nodes, Nodes) {
    int i = blockIdx.x * blockDim.x + threadIdx.x, j = blockIdx.y * blockDim.y + threadIdx.y;
    if (i > a.cells || j > a.cells) return;
    Point p = {(float)i / (float)a.cells, (float)j / (float)a.cells}, out = p;
    if (i >= a.columns[0] && i <= a.columns[1] && j >= a.rows[0] && j <= a.rows[1]) {
        // Sums of every sixteenth point, as the CPU has them.
        float sx[16], sy[16];
        UNROLL for (int k = 0; k < 16; k++) sx[k] = sy[k] = 0.0f;
        for (int k = 0; k < a.count; k += 16) {
            UNROLL for (int lane = 0; lane < 16; lane++) {
                if (k + lane >= a.count) continue;
                float dx = p.x - a.x[k + lane], dy = p.y - a.y[k + lane], d = dx * dx + dy * dy;
                float u = d * logarithm(fmaxf(d, 1e-12f));
                sx[lane] += a.wx[k + lane] * u;
                sy[lane] += a.wy[k + lane] * u;
            }
        }
        float x = 0.0f, y = 0.0f;
        UNROLL for (int k = 0; k < 16; k++) {
            x += sx[k];
            y += sy[k];
        }
        out.x = a.affine[0] + a.affine[1] * p.x + a.affine[2] * p.y + x;
        out.y = a.affine[3] + a.affine[4] * p.x + a.affine[5] * p.y + y;
    }
    a.nodes[j * (a.cells + 1) + i] = out;
}

__device__ __forceinline__ bool turns(Point a, Point b, Point c) {
    return (b.x - a.x) * (c.y - a.y) - (b.y - a.y) * (c.x - a.x) <= 0.0f;
}

// Lattice::folded: whether a cell does not turn the right way round at one of its corners.
KERNEL(spline_folds, Nodes) {
    int i = a.columns[0] + blockIdx.x * blockDim.x + threadIdx.x, j = a.rows[0] + blockIdx.y * blockDim.y + threadIdx.y;
    if (i >= a.columns[1] || j >= a.rows[1]) return;
    const Point* at = a.nodes + j * (a.cells + 1) + i;
    Point p = at[0], q = at[1], r = at[a.cells + 2], s = at[a.cells + 1];
    if (turns(p, q, s) || turns(q, r, p) || turns(r, s, q) || turns(s, p, r)) atomicOr(a.folded, 1);
}

struct Warp {
    // [side, side, 3].
    const u8* crop;
    u8* out;
    // [cells + 1, cells + 1].
    const Point* nodes;
    int side, cells, columns[2], rows[2];
    // Of 256 how much of the warp there is in `out`, and whether `out` gets the crop's own pixels outside of what is used.
    int share, copies;
};

__device__ __forceinline__ int edge(int i, int side, int cells) {
    int at = (int)fmaxf(ceilf((float)(i * side) / (float)cells - 0.5f), 0.0f);
    return at < side ? at : side;
}

__device__ __forceinline__ int cell_of(int x, int side, int cells) {
    int i = clamp((int)(((float)x + 0.5f) * (float)cells / (float)side), 0, cells - 1);
    while (i > 0 && edge(i, side, cells) > x) i--;
    while (i < cells - 1 && edge(i + 1, side, cells) <= x) i++;
    return i;
}

__device__ __forceinline__ Point between(Point a, Point b, float t) { return {a.x + (b.x - a.x) * t, a.y + (b.y - a.y) * t}; }

// Lattice::warp and Lattice::warp_mixed_into.
KERNEL(warp, Warp) {
    int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y;
    if (x >= a.side || y >= a.side) return;
    u8* out = a.out + ((i64)y * a.side + x) * 3;
    int i = cell_of(x, a.side, a.cells);
    bool used = i >= a.columns[0] && i < a.columns[1] && y >= edge(a.rows[0], a.side, a.cells) && y < edge(a.rows[1], a.side, a.cells);
    if (!used) {
        if (a.copies)
            for (int c = 0; c < 3; c++) out[c] = a.crop[((i64)y * a.side + x) * 3 + c];
        return;
    }
    float per_pixel = (float)a.cells / (float)a.side, v = ((float)y + 0.5f) * per_pixel;
    int row = a.cells + 1, j = (int)v < a.cells - 1 ? (int)v : a.cells - 1, first = edge(i, a.side, a.cells);
    const Point *upper = a.nodes + j * row + i, *lower = upper + row;
    Point left = between(upper[0], lower[0], v - (float)j), right = between(upper[1], lower[1], v - (float)j);
    Point step = {(right.x - left.x) * per_pixel, (right.y - left.y) * per_pixel};
    float from = ((float)first + 0.5f) - (float)i / per_pixel, side = (float)a.side;
    Cut cut = {a.side, a.side, 0, 0, 1, whole(step.x * side * 65536.0f), whole(step.y * side * 65536.0f)};
    Place start = {whole(((left.x + step.x * from) * side - 0.5f) * 65536.0f), whole(((left.y + step.y * from) * side - 0.5f) * 65536.0f)};
    Place at = along(cut, start, x - first);
    for (int c = 0; c < 3; c++) {
        Plane plane = {const_cast<u8*>(a.crop) + c, a.side * 3, 3, 0, 0, a.side, a.side};
        int warped = byte(cubic(plane, cut, at) + 0.5f);
        out[c] = (u8)((out[c] * (256 - a.share) + warped * a.share) >> 8);
    }
}
