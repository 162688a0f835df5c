// What the kernels share: planes of bytes, places between their pixels, colours.
//
// Structures are laid out as those of engines/src/kernels/args.rs. Nothing is contracted to multiply-add (--fmad=false), so that
// numbers are those of the CPU.
#ifndef LIPSTREAM_COMMON_H
#define LIPSTREAM_COMMON_H

typedef unsigned char u8;
typedef unsigned int u32;
typedef long long i64;
typedef unsigned long long u64;

#ifdef LIPSTREAM_HOST
#include "host.h"
#else
#define KERNEL(name, Arguments) extern "C" __global__ void name(const __grid_constant__ Arguments a)
#define UNROLL _Pragma("unroll")
#endif

// The samples of one channel in a part of a picture.
struct Plane {
    u8* data;
    // Bytes from one row to the next, and from one sample to the next.
    int stride, step;
    // The part's place in the picture, and its size, in samples.
    int left, top, width, height;
};

// A picture averaged by a whole factor, which is worked out where it is asked for: its size, the picture's pixel at its left top
// corner, the factor, and how far a place moves from one pixel of a line to the next. Places are 16.16 fixed point.
struct Cut {
    int width, height, left, top, factor, dx, dy;
};

struct Place {
    int x, y;
};

// Pixels first..end of a row, and the place of the first.
struct Line {
    int first, end, x, y;
};

// Three channels to full-range R, G, B: rows and offsets.
struct Matrix {
    float rows[9], offset[3];
};

// As ColorSpace of engines/src/image/color.rs; where `yuv` is 0 the channels are R, G, B.
struct Space {
    int yuv;
    float kr, kb, offset, luma, chroma;
};

__device__ __forceinline__ int clamp(int v, int low, int high) { return v < low ? low : v > high ? high : v; }

// NaN becomes `low`, as it becomes 0 in a cast of Rust's.
__device__ __forceinline__ float clampf(float v, float low, float high) { return fminf(fmaxf(v, low), high); }

__device__ __forceinline__ u8 byte(float v) { return (u8)(int)clampf(v, 0.0f, 255.0f); }

// A float cut off to an integer that saturates, as Rust's `as i32`.
__device__ __forceinline__ int whole(float v) { return (int)(i64)clampf(v, -2147483648.0f, 2147483520.0f); }

__device__ __forceinline__ u32 sample(const Plane& p, int x, int y) {
    x = clamp(x - p.left, 0, p.width - 1);
    y = clamp(y - p.top, 0, p.height - 1);
    return p.data[(i64)y * p.stride + (i64)x * p.step];
}

__device__ __forceinline__ u32 reduced(const Plane& p, const Cut& cut, int column, int row) {
    int f = cut.factor, x = cut.left + column * f, y = cut.top + row * f;
    if (f == 1) return sample(p, x, y);
    u32 sum = 0;
    for (int j = 0; j < f; j++)
        for (int i = 0; i < f; i++) sum += sample(p, x + i, y + j);
    u32 area = f * f;
    return (sum + area / 2) / area;
}

__device__ __forceinline__ Place along(const Cut& cut, Place from, int i) {
    return {(int)((u32)from.x + (u32)cut.dx * (u32)i), (int)((u32)from.y + (u32)cut.dy * (u32)i)};
}

__device__ __forceinline__ Place within(const Cut& cut, Place at) {
    return {clamp(at.x, 0, (cut.width - 1) << 16), clamp(at.y, 0, (cut.height - 1) << 16)};
}

// The bilinear value, 8.8 fixed point.
__device__ __forceinline__ u32 linear(const Plane& p, const Cut& cut, Place at) {
    at = within(cut, at);
    int column = at.x >> 16, row = at.y >> 16;
    u32 fx = (at.x >> 8) & 255, fy = (at.y >> 8) & 255;
    int right = column + 1 < cut.width ? column + 1 : column, below = row + 1 < cut.height ? row + 1 : row;
    u32 upper = reduced(p, cut, column, row) * (256 - fx) + reduced(p, cut, right, row) * fx;
    u32 lower = reduced(p, cut, column, below) * (256 - fx) + reduced(p, cut, right, below) * fx;
    return (upper * (256 - fy) + lower * fy + 128) >> 8;
}

// R. Keys' weights with a = -1/2, by 256ths of the way.
__device__ __forceinline__ void keys(int place, float w[4]) {
    float t = (float)((place >> 8) & 255) / 256.0f, square = t * t, cube = square * t;
    w[0] = square - 0.5f * (t + cube);
    w[1] = 1.0f - 2.5f * square + 1.5f * cube;
    w[2] = 0.5f * t + 2.0f * square - 1.5f * cube;
    w[3] = 0.5f * (cube - square);
}

// The cubic value, 0..255. `apart` is the order in which the CPU adds what it reads of one or two channels.
__device__ __forceinline__ float cubic(const Plane& p, const Cut& cut, Place at, bool apart = false) {
    at = within(cut, at);
    int column = at.x >> 16, row = at.y >> 16;
    float across[4], down[4], sums[4];
    keys(at.x, across);
    keys(at.y, down);
    for (int i = 0; i < 4; i++) {
        int x = clamp(column + i - 1, 0, cut.width - 1);
        float sum = 0.0f;
        for (int j = 0; j < 4; j++) sum += (float)reduced(p, cut, x, clamp(row + j - 1, 0, cut.height - 1)) * down[j];
        sums[i] = sum * across[i];
    }
    float low = sums[0] + (apart ? sums[2] : sums[1]), high = (apart ? sums[1] : sums[2]) + sums[3];
    return clampf(low + high, 0.0f, 255.0f);
}

__device__ __forceinline__ void to_rgb(const Space& s, const float p[3], float out[3]) {
    if (!s.yuv) {
        for (int c = 0; c < 3; c++) out[c] = p[c];
        return;
    }
    float y = (p[0] - s.offset) * (255.0f / s.luma);
    float cb = (p[1] - 128.0f) * (255.0f / s.chroma), cr = (p[2] - 128.0f) * (255.0f / s.chroma);
    float r = y + 2.0f * (1.0f - s.kr) * cr, b = y + 2.0f * (1.0f - s.kb) * cb;
    out[0] = clampf(r, 0.0f, 255.0f);
    out[1] = clampf((y - s.kr * r - s.kb * b) / (1.0f - s.kr - s.kb), 0.0f, 255.0f);
    out[2] = clampf(b, 0.0f, 255.0f);
}

__device__ __forceinline__ void from_rgb(const Space& s, const float rgb[3], float out[3]) {
    if (!s.yuv) {
        for (int c = 0; c < 3; c++) out[c] = rgb[c];
        return;
    }
    float y = s.kr * rgb[0] + (1.0f - s.kr - s.kb) * rgb[1] + s.kb * rgb[2];
    float cb = (rgb[2] - y) / (2.0f * (1.0f - s.kb)), cr = (rgb[0] - y) / (2.0f * (1.0f - s.kr));
    out[0] = s.offset + y * (s.luma / 255.0f);
    out[1] = 128.0f + cb * (s.chroma / 255.0f);
    out[2] = 128.0f + cr * (s.chroma / 255.0f);
}

// A channel of a pixel in R, G, B, 0..1.
__device__ __forceinline__ float unit_rgb(const Matrix& m, const u8* p, int c) {
    const float* w = m.rows + 3 * c;
    float v = w[0] * (float)p[0] + w[1] * (float)p[1] + w[2] * (float)p[2] + m.offset[c];
    return clampf(v * (1.0f / 255.0f), 0.0f, 1.0f);
}

#endif
