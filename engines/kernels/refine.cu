// What goes into and comes out of the refinement of `compact`, and what follows it.
#include "common.h"

// Pixels of a side of the window that the network sees.
#define WINDOW 128
// Scan lines of a row of pixels, and crossings of one that count.
#define LINES 4
#define CROSSINGS 64

struct Window {
    // [side, side, 3], `zoom` times as large as the network's.
    const u8* crop;
    // R, G, B, 0..1, [3, WINDOW, WINDOW].
    float* out;
    Matrix matrix;
    int side, zoom, x, y;
};

// refine::copy_window and rgb_planar.
KERNEL(window, Window) {
    int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y;
    if (x >= WINDOW || y >= WINDOW) return;
    u32 count = a.zoom * a.zoom, sums[3] = {count / 2, count / 2, count / 2};
    for (int j = 0; j < a.zoom; j++) {
        const u8* row = a.crop + ((i64)((a.y + y) * a.zoom + j) * a.side + (a.x + x) * a.zoom) * 3;
        for (int i = 0; i < 3 * a.zoom; i += 3)
            for (int c = 0; c < 3; c++) sums[c] += row[i + c];
    }
    u8 p[3];
    for (int c = 0; c < 3; c++) p[c] = a.zoom == 1 ? (u8)sums[c] : (u8)(sums[c] / count);
    for (int c = 0; c < 3; c++) a.out[((i64)c * WINDOW + y) * WINDOW + x] = unit_rgb(a.matrix, p, c);
}

struct Shapes {
    // The mouth's inside and its lips, [2, WINDOW, WINDOW].
    float* out;
    // In pixels of the window: of the inside, then of the lips' outline.
    const float* points;
    int inner, outer;
};

// Where the outline crosses a scan line, sorted.
__device__ __forceinline__ int crossings(const float* points, int count, float level, float* out) {
    int found = 0;
    for (int k = 0; k < count; k++) {
        const float *p = points + 2 * k, *q = points + 2 * (k + 1 < count ? k + 1 : 0);
        if ((p[1] <= level) == (q[1] <= level) || found == CROSSINGS) continue;
        float x = p[0] + (q[0] - p[0]) * (level - p[1]) / (q[1] - p[1]);
        int at = found++;
        for (; at > 0 && out[at - 1] > x; at--) out[at] = out[at - 1];
        out[at] = x;
    }
    return found;
}

// refine::draw_shapes: a block for each row, of WINDOW threads.
KERNEL(shapes, Shapes) {
    __shared__ float places[2 * LINES][CROSSINGS];
    __shared__ int counts[2 * LINES];
    int x = threadIdx.x, y = blockIdx.x;
    if (x < 2 * LINES) {
        bool outline = x >= LINES;
        float level = (float)y + ((float)(x % LINES) + 0.5f) * (1.0f / LINES);
        counts[x] = crossings(a.points + (outline ? 2 * a.inner : 0), outline ? a.outer : a.inner, level, places[x]);
    }
    __syncthreads();
    float covered[2] = {0.0f, 0.0f};
    for (int line = 0; line < 2 * LINES; line++) {
        for (int k = 0; k + 1 < counts[line]; k += 2) {
            float left = clampf(places[line][k], 0.0f, WINDOW), right = clampf(places[line][k + 1], 0.0f, WINDOW);
            if (x < (int)left || x >= (int)ceilf(right)) continue;
            float part = fmaxf(fminf(right, (float)x + 1.0f) - fmaxf(left, (float)x), 0.0f);
            covered[line / LINES] += (1.0f / LINES) * part;
        }
    }
    a.out[y * WINDOW + x] = covered[0];
    a.out[(WINDOW + y) * WINDOW + x] = fmaxf(covered[1] - covered[0], 0.0f);
}

struct Correct {
    // [side, side, 3].
    u8* picture;
    // Differences of R, G, B, [3, WINDOW, WINDOW], enlarged `zoom` times.
    const float* delta;
    Space space;
    // The window's corner in pixels of the picture.
    int side, zoom, x, y;
};

__device__ __forceinline__ int way(int k, int zoom, float* t) {
    float at = clampf(((float)k + 0.5f) / (float)zoom - 0.5f, 0.0f, (float)(WINDOW - 1));
    int low = (int)at < WINDOW - 2 ? (int)at : WINDOW - 2;
    *t = at - (float)low;
    return low;
}

// refine::enlarged and refine::add.
KERNEL(correct, Correct) {
    int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y;
    if (x >= WINDOW * a.zoom || y >= WINDOW * a.zoom) return;
    float rgb[3], of[3], zero[3], none[3] = {0.0f, 0.0f, 0.0f};
    for (int c = 0; c < 3; c++) {
        const float* plane = a.delta + c * WINDOW * WINDOW;
        float v;
        if (a.zoom == 1) {
            v = plane[y * WINDOW + x];
        } else {
            float across, down;
            int i = way(x, a.zoom, &across), j = way(y, a.zoom, &down);
            const float* p = plane + j * WINDOW + i;
            float left = p[0] + (p[WINDOW] - p[0]) * down, right = p[1] + (p[WINDOW + 1] - p[1]) * down;
            v = left + (right - left) * across;
        }
        rgb[c] = v * 255.0f;
    }
    from_rgb(a.space, rgb, of);
    from_rgb(a.space, none, zero);
    u8* out = a.picture + ((i64)(a.y + y) * a.side + a.x + x) * 3;
    for (int c = 0; c < 3; c++) out[c] = byte((float)out[c] + (of[c] - zero[c]) + 0.5f);
}

struct Finish {
    // [side, side, 3]: `out` is what `from` becomes; `before` is the picture of the last frame, or 0.
    const u8 *from, *before;
    u8* out;
    int side;
    // Columns and rows that are sharpened, by how much in 256ths of what a blur takes away, of pixels that lie `reach` apart.
    int columns[2], rows[2], weight, reach;
    // Columns and rows that are steadied.
    int calm_columns[2], calm_rows[2];
    // The part of a small change that is shown.
    float calm;
    // Columns and rows of what moves, and that part there.
    int moving_columns[2], moving_rows[2];
    float lively;
    int yuv;
};

__device__ __forceinline__ int brightness(const int p[3], int yuv) {
    return yuv ? p[0] : (77 * p[0] + 150 * p[1] + 29 * p[2] + 128) >> 8;
}

// sharpen and steady.
KERNEL(finish, Finish) {
    int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y;
    if (x >= a.side || y >= a.side) return;
    i64 at = ((i64)y * a.side + x) * 3, stride = (i64)a.side * 3 * a.reach;
    int p[3], step = 3 * a.reach;
    bool sharp = x >= a.columns[0] && x < a.columns[1] && y >= a.rows[0] && y < a.rows[1];
    for (int c = 0; c < 3; c++) {
        const u8* from = a.from + at + c;
        p[c] = *from;
        if (!sharp || (a.yuv && c > 0)) continue;
        int blurred = 0;
        for (int j = -1; j <= 1; j++) {
            const u8* line = from + j * stride;
            blurred += (j == 0 ? 2 : 1) * (line[-step] + 2 * line[0] + line[step]);
        }
        p[c] = clamp(p[c] + (((16 * p[c] - blurred) * a.weight + 2048) >> 12), 0, 255);
    }
    bool calm = a.before && x >= a.calm_columns[0] && x < a.calm_columns[1] && y >= a.calm_rows[0] && y < a.calm_rows[1];
    if (calm) {
        bool moves = x >= a.moving_columns[0] && x < a.moving_columns[1] && y >= a.moving_rows[0] && y < a.moving_rows[1];
        float shown = moves ? a.lively : a.calm;
        int old[3];
        for (int c = 0; c < 3; c++) old[c] = a.before[at + c];
        int change = brightness(p, a.yuv) - brightness(old, a.yuv);
        change = change < 0 ? -change : change;
        float t = clampf(((float)change - 4.0f) / (20.0f - 4.0f), 0.0f, 1.0f);
        int weight = (int)((shown + (1.0f - shown) * t * t * (3.0f - 2.0f * t)) * 256.0f);
        for (int c = 0; c < 3; c++) p[c] = old[c] + (((p[c] - old[c]) * weight + 128) >> 8);
    }
    for (int c = 0; c < 3; c++) a.out[at + c] = (u8)p[c];
}
