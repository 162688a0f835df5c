// From what a network painted back into a frame.
#include "common.h"

struct Put {
    // [size, size, 3].
    u8* crop;
    // R, G, B, [side, side].
    const float* planes[3];
    int size, side;
    // The part of the crop that the planes show.
    float x, y, width, height;
    // What makes 0..1 of a value.
    float scale, offset;
    Space space;
};

// Catmull-Rom weights around `at` of a line of `length`; the edge is repeated.
__device__ __forceinline__ void around(float at, int length, int places[4], float w[4]) {
    float base = floorf(at), t = at - base;
    for (int k = 0; k < 4; k++) places[k] = clamp((int)base + k - 1, 0, length - 1);
    w[0] = ((-0.5f * t + 1.0f) * t - 0.5f) * t;
    w[1] = (1.5f * t - 2.5f) * t * t + 1.0f;
    w[2] = ((-1.5f * t + 2.0f) * t + 0.5f) * t;
    w[3] = (0.5f * t - 0.5f) * t * t;
}

// inset::put.
KERNEL(inset_put, Put) {
    int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y;
    if (x >= a.size || y >= a.size) return;
    float unit = 1.0f / (float)a.size;
    float u = (((float)x + 0.5f) * unit - a.x) / a.width, v = (((float)y + 0.5f) * unit - a.y) / a.height;
    if (!(u >= 0.0f && u < 1.0f && v >= 0.0f && v < 1.0f)) return;
    int columns[4], rows[4];
    float across[4], down[4], rgb[3], own[3];
    around(u * (float)a.side - 0.5f, a.side, columns, across);
    around(v * (float)a.side - 0.5f, a.side, rows, down);
    for (int c = 0; c < 3; c++) {
        float sum = 0.0f;
        for (int j = 0; j < 4; j++) {
            const float* row = a.planes[c] + (i64)rows[j] * a.side;
            float line = 0.0f;
            for (int i = 0; i < 4; i++) line += across[i] * (row[columns[i]] * a.scale + a.offset);
            sum += down[j] * line;
        }
        rgb[c] = clampf(sum, 0.0f, 1.0f) * 255.0f;
    }
    from_rgb(a.space, rgb, own);
    u8* out = a.crop + ((i64)y * a.size + x) * 3;
    for (int c = 0; c < 3; c++) out[c] = byte(own[c] + 0.5f);
}

struct Cover {
    // [side, side].
    u8* out;
    const float *columns, *rows;
    int side;
};

// The mask of engine::pixel: what is shown of each column times what is of each row.
KERNEL(cover, Cover) {
    int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y;
    if (x >= a.side || y >= a.side) return;
    a.out[(i64)y * a.side + x] = byte(a.rows[y] * a.columns[x] * 255.0f + 0.5f);
}

struct Convert {
    const u8* from;
    u8* out;
    i64 pixels;
    Space space, wanted;
};

// Crop::convert.
KERNEL(convert, Convert) {
    i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= a.pixels) return;
    float p[3], rgb[3], own[3];
    for (int c = 0; c < 3; c++) p[c] = (float)a.from[3 * i + c];
    to_rgb(a.space, p, rgb);
    from_rgb(a.wanted, rgb, own);
    for (int c = 0; c < 3; c++) a.out[3 * i + c] = byte(own[c] + 0.5f);
}

// Up to three channels of a frame that lie in one plane, and those of the patch that go there.
struct Target {
    Plane frame[3], patch[3], mask;
    Cut cut;
    // Of the rows top..top + rows.
    const Line* lines;
    int channels, top, rows;
    // The middle of what is pasted, and a pixel in units of half of it.
    float x, y, unit;
};

// The correction of colours: `gain (p - pivot) + pivot + offset + slope . at`.
struct Colour {
    float gain, pivot[3], plane[9];
};

// A pixel of the feather; `at[0]` is NaN where there is none.
struct Sample {
    float at[2], patch[3], frame[3];
};

struct Fit {
    Target target;
    // [rows, columns] of them, `stride` pixels apart.
    Sample* samples;
    Colour* out;
    int stride, sample_rows, sample_columns, with_gain;
};

// Compares patch and frame where the mask is 13..153.
KERNEL(compare, Fit) {
    int m = blockIdx.x * blockDim.x + threadIdx.x, k = blockIdx.y * blockDim.y + threadIdx.y;
    if (m >= a.sample_columns || k >= a.sample_rows) return;
    const Target& t = a.target;
    Sample* out = a.samples + (i64)k * a.sample_columns + m;
    out->at[0] = __uint_as_float(0x7fc00000u);
    if (k * a.stride >= t.rows) return;
    Line line = t.lines[k * a.stride];
    int x = line.first + m * a.stride, y = t.top + k * a.stride;
    if (x >= line.end) return;
    Place at = along(t.cut, {line.x, line.y}, m * a.stride);
    u32 covered = linear(t.mask, t.cut, at) >> 8;
    if (covered < 13 || covered >= 154) return;
    out->at[0] = ((float)x + 0.5f - t.x) * t.unit;
    out->at[1] = ((float)y + 0.5f - t.y) * t.unit;
    for (int c = 0; c < t.channels; c++) {
        out->patch[c] = (float)linear(t.patch[c], t.cut, at) / 256.0f;
        out->frame[c] = (float)sample(t.frame[c], x, y);
    }
}

// Threads of a block of `fit`.
#define FIT 256

// The sum over a block, in all of its threads.
__device__ __forceinline__ float total(float v) {
    __shared__ float parts[FIT];
    parts[threadIdx.x] = v;
    __syncthreads();
    for (int half = FIT / 2; half > 0; half /= 2) {
        if ((int)threadIdx.x < half) parts[threadIdx.x] += parts[threadIdx.x + half];
        __syncthreads();
    }
    v = parts[0];
    __syncthreads();
    return v;
}

// What is fitted to, as far as it is known.
struct State {
    const Sample* samples;
    int count, channels;
    float plane[9], limit;
};

__device__ __forceinline__ float residual(const State& s, const Sample& p) {
    float sum = 0.0f;
    for (int k = 0; k < s.channels; k++) {
        const float* w = s.plane + 3 * k;
        float d = p.frame[k] - p.patch[k] - (w[0] + w[1] * p.at[0] + w[2] * p.at[1]);
        sum += d * d;
    }
    return sum / (float)s.channels;
}

__device__ __forceinline__ float vote(const State& s, const Sample& p) {
    float v = fmaxf(1.0f - residual(s, p) / s.limit, 0.0f);
    return v * v;
}

// The difference of a channel, or the residual where `channel` is -1.
__device__ __forceinline__ float value_of(const State& s, const Sample& p, int channel) {
    return channel < 0 ? residual(s, p) : p.frame[channel] - p.patch[channel];
}

// The value at place `rank` of those sorted, eight bits of an ordered key at a time.
__device__ __forceinline__ float ranked(const State& s, int channel, int rank) {
    __shared__ u32 counts[256];
    __shared__ u32 chosen[2];
    u32 prefix = 0, left = rank;
    for (int shift = 24; shift >= 0; shift -= 8) {
        for (int i = threadIdx.x; i < 256; i += FIT) counts[i] = 0;
        __syncthreads();
        for (int i = threadIdx.x; i < s.count; i += FIT) {
            if (s.samples[i].at[0] != s.samples[i].at[0]) continue;
            u32 bits = __float_as_uint(value_of(s, s.samples[i], channel));
            u32 key = bits & 0x80000000u ? ~bits : bits | 0x80000000u;
            if (shift == 24 || key >> (shift + 8) == prefix) atomicAdd(&counts[(key >> shift) & 255], 1u);
        }
        __syncthreads();
        if (threadIdx.x == 0) {
            u32 bucket = 0;
            while (bucket < 255 && counts[bucket] <= left) left -= counts[bucket++];
            chosen[0] = bucket;
            chosen[1] = left;
        }
        __syncthreads();
        prefix = prefix << 8 | chosen[0];
        left = chosen[1];
        __syncthreads();
    }
    return __uint_as_float(prefix & 0x80000000u ? prefix & 0x7fffffffu : ~prefix);
}

// Solves a symmetric system of three by Cholesky's factors; 0 where it is not positive definite.
__device__ __forceinline__ void solve(const float m[6], const float b[3], float x[3]) {
    // m: 00, 10, 11, 20, 21, 22.
    x[0] = x[1] = x[2] = 0.0f;
    if (!(m[0] > 0.0f)) return;
    float a = sqrtf(m[0]), p = m[1] / a, q = m[3] / a, d = m[2] - p * p;
    if (!(d > 0.0f)) return;
    float e = sqrtf(d), r = (m[4] - q * p) / e, f = m[5] - q * q - r * r;
    if (!(f > 0.0f)) return;
    f = sqrtf(f);
    float u = b[0] / a, v = (b[1] - p * u) / e, w = (b[2] - q * u - r * v) / f;
    x[2] = w / f;
    x[1] = (v - r * x[2]) / e;
    x[0] = (u - p * x[1] - q * x[2]) / a;
}

// Weighted least squares of what a gain leaves of the difference, with a ridge on the slopes.
__device__ __forceinline__ void planes(const State& s, float gain, const float pivot[3], float out[9]) {
    float m[6] = {0, 0, 0, 0, 0, 0}, b[9] = {0, 0, 0, 0, 0, 0, 0, 0, 0};
    for (int i = threadIdx.x; i < s.count; i += FIT) {
        const Sample& p = s.samples[i];
        if (p.at[0] != p.at[0]) continue;
        float w = vote(s, p), x = p.at[0], y = p.at[1];
        m[0] += w;
        m[1] += x * w;
        m[2] += x * x * w;
        m[3] += y * w;
        m[4] += x * y * w;
        m[5] += y * y * w;
        for (int k = 0; k < s.channels; k++) {
            float v = (p.frame[k] - ((p.patch[k] - pivot[k]) * gain + pivot[k])) * w;
            b[3 * k] += v;
            b[3 * k + 1] += x * v;
            b[3 * k + 2] += y * v;
        }
    }
    for (int i = 0; i < 6; i++) m[i] = total(m[i]);
    for (int i = 0; i < 3 * s.channels; i++) b[i] = total(b[i]);
    m[2] += 0.02f * m[0];
    m[5] += 0.02f * m[0];
    for (int k = 0; k < s.channels; k++) solve(m, b + 3 * k, out + 3 * k);
}

// Ratio of the contrasts of frame and patch, trusted as far as the two correlate.
__device__ __forceinline__ float contrast(float patch, float frame, float both) {
    if (patch < 4.0f || frame < 4.0f) return 1.0f;
    float trust = clampf((both / sqrtf(patch * frame) - 0.6f) / 0.3f, 0.0f, 1.0f);
    return 1.0f + (clampf(sqrtf(frame / patch), 1.0f / 1.15f, 1.15f) - 1.0f) * trust;
}

// Colour::fit, in one block of FIT threads.
KERNEL(fit, Fit) {
    State s = {a.samples, a.sample_rows * a.sample_columns, a.target.channels, {}, 0.0f};
    Colour none = {1.0f, {0, 0, 0}, {0, 0, 0, 0, 0, 0, 0, 0, 0}};
    float found = 0.0f, all = 0.0f, pivot[3] = {0, 0, 0}, average[3] = {0, 0, 0}, next[9];
    for (int i = threadIdx.x; i < s.count; i += FIT) found += s.samples[i].at[0] == s.samples[i].at[0] ? 1.0f : 0.0f;
    int samples = (int)total(found);
    if (samples < 40) {
        if (threadIdx.x == 0) *a.out = none;
        return;
    }
    for (int k = 0; k < s.channels; k++) {
        next[3 * k] = ranked(s, k, samples / 2);
        next[3 * k + 1] = next[3 * k + 2] = 0.0f;
    }
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < 3 * s.channels; i++) s.plane[i] = next[i];
        s.limit = fmaxf(20.0f * ranked(s, -1, samples / 2), 16.0f);
        planes(s, 1.0f, pivot, next);
    }
    // What follows takes the votes of the last round.
    float sums[6] = {0, 0, 0, 0, 0, 0};
    for (int i = threadIdx.x; i < s.count; i += FIT) {
        const Sample& p = s.samples[i];
        if (p.at[0] != p.at[0]) continue;
        float w = vote(s, p);
        all += w;
        for (int k = 0; k < s.channels; k++) {
            sums[k] += p.patch[k] * w;
            sums[3 + k] += p.frame[k] * w;
        }
    }
    all = total(all);
    if (all < 20.0f) {
        if (threadIdx.x == 0) *a.out = none;
        return;
    }
    for (int k = 0; k < s.channels; k++) {
        pivot[k] = total(sums[k]) / all;
        average[k] = total(sums[3 + k]) / all;
    }
    float gain = 1.0f;
    if (a.with_gain) {
        float of_patch = 0.0f, of_frame = 0.0f, of_both = 0.0f;
        for (int i = threadIdx.x; i < s.count; i += FIT) {
            const Sample& p = s.samples[i];
            if (p.at[0] != p.at[0]) continue;
            float w = vote(s, p);
            for (int k = 0; k < s.channels; k++) {
                float x = p.patch[k] - pivot[k], y = p.frame[k] - average[k];
                of_patch += x * x * w;
                of_frame += y * y * w;
                of_both += x * y * w;
            }
        }
        of_patch = total(of_patch) / all;
        of_frame = total(of_frame) / all;
        of_both = total(of_both) / all;
        gain = contrast(of_patch, of_frame, of_both);
    }
    if (gain != 1.0f) planes(s, gain, pivot, next);
    if (threadIdx.x != 0) return;
    Colour out = none;
    out.gain = gain;
    for (int k = 0; k < s.channels; k++) {
        float steep = fabsf(next[3 * k + 1]) + fabsf(next[3 * k + 2]), shrink = steep > 6.0f ? 6.0f / steep : 1.0f;
        out.pivot[k] = pivot[k];
        out.plane[3 * k] = clampf(next[3 * k], -12.0f, 12.0f);
        out.plane[3 * k + 1] = next[3 * k + 1] * shrink;
        out.plane[3 * k + 2] = next[3 * k + 2] * shrink;
    }
    *a.out = out;
}

struct Blend {
    Target target;
    const Colour* colour;
    // The first column of all rows.
    int left;
    // Opacity over 255.
    float weight;
};

// Puts the patch into the frame, in place.
KERNEL(blend, Blend) {
    const Target& t = a.target;
    int x = a.left + blockIdx.x * blockDim.x + threadIdx.x, row = blockIdx.y * blockDim.y + threadIdx.y;
    if (row >= t.rows) return;
    Line line = t.lines[row];
    if (x < line.first || x >= line.end) return;
    int y = t.top + row;
    Place at = along(t.cut, {line.x, line.y}, x - line.first);
    float covered = cubic(t.mask, t.cut, at);
    // Below half a code of mask nothing would change.
    if (covered < 0.5f) return;
    float w = covered * a.weight, u = ((float)x + 0.5f - t.x) * t.unit, v = ((float)y + 0.5f - t.y) * t.unit;
    const Colour& colour = *a.colour;
    for (int k = 0; k < t.channels; k++) {
        const float* plane = colour.plane + 3 * k;
        float p = (cubic(t.patch[k], t.cut, at) - colour.pivot[k]) * colour.gain + colour.pivot[k];
        p = clampf(p + plane[0] + plane[1] * u + plane[2] * v, 0.0f, 255.0f);
        const Plane& frame = t.frame[k];
        u8* out = frame.data + (i64)(y - frame.top) * frame.stride + (i64)(x - frame.left) * frame.step;
        float f = (float)*out;
        *out = byte(f + (p - f) * w + 0.5f);
    }
}
