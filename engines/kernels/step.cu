// Latents, [channels, frames, plane]: how they begin, what a step makes of them, and what goes to the decoder.
#include "common.h"
#include "noise.h"

// What is known of the first frames, [channels, kept, plane], as they are after this step. `known` may be 0.
struct Clip {
    float* latent;
    const float* known;
    // Where the latents are put as well, where it is not 0: their trail, and the slots of the network's next batch.
    float* copies[3];
    int channels, frames, kept, plane;
};

__device__ __forceinline__ void store(const Clip& clip, i64 at, float v) {
    clip.latent[at] = v;
    for (int k = 0; k < 3; k++)
        if (clip.copies[k]) clip.copies[k][at] = v;
}

// The channel and the place in the plane that a thread is for; one after another.
__device__ __forceinline__ i64 own_column(int channels, int plane, int* channel, int* at) {
    i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= (i64)channels * plane) return -1;
    *channel = (int)(i / plane);
    *at = (int)(i % plane);
    return i;
}

struct Begin {
    Clip clip;
    // [channels, plane], of all frames.
    const float* noise;
};

// The latents of a clip before its first step.
KERNEL(begin, Begin) {
    int channel, at;
    i64 own = own_column(a.clip.channels, a.clip.plane, &channel, &at);
    if (own < 0) return;
    const Clip& clip = a.clip;
    int kept = clip.known ? clip.kept : 0;
    for (int f = 0; f < clip.frames; f++) {
        float v = f < kept ? clip.known[((i64)channel * kept + f) * clip.plane + at] : a.noise[own];
        store(clip, ((i64)channel * clip.frames + f) * clip.plane + at, v);
    }
}

struct Advance {
    Clip clip;
    // What the network said with its condition, and without where it is not 0.
    const float *prediction, *without;
    // The clean latent as the step before estimated it, and as this one does.
    float* estimate;
    Noise noise;
    float guidance, keep, predict, prior, deviation, of_latent, of_prediction;
    int estimates;
};

// One step: guidance, Step::apply, known::go_on, known::put_back.
KERNEL(advance, Advance) {
    int channel, at;
    if (own_column(a.clip.channels, a.clip.plane, &channel, &at) < 0) return;
    const Clip& clip = a.clip;
    int kept = clip.known ? clip.kept : 0, fresh = clip.frames - kept;
    float missed = 0.0f;
    for (int f = 0; f < clip.frames; f++) {
        i64 i = ((i64)channel * clip.frames + f) * clip.plane + at;
        float x = clip.latent[i], p = a.prediction[i];
        if (a.without) p = a.without[i] + a.guidance * (p - a.without[i]);
        float v = a.keep * x + a.predict * p;
        if (a.prior != 0.0f) v += a.prior * a.estimate[i];
        if (a.estimates) a.estimate[i] = a.of_latent * x + a.of_prediction * p;
        if (a.deviation > 0.0f) v += a.deviation * normal(a.noise, i);
        if (f < kept) {
            float known = clip.known[((i64)channel * kept + f) * clip.plane + at];
            missed = known - v;
            v = known;
        } else if (kept > 0) {
            v += (1.0f - (float)(f - kept + 1) / (float)(fresh + 1)) * missed;
        }
        store(clip, i, v);
    }
}

struct Draw {
    float *out, *last;
    Noise noise;
    // Of the last latent, which there is where `goes_on` is 1, and of fresh numbers. `last` may be 0 where there is none.
    float keep, fresh, deviation;
    int length, goes_on;
};

// Noise::latent.
KERNEL(draw, Draw) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= a.length) return;
    float v = normal(a.noise, i);
    if (a.goes_on) v = a.keep * a.last[i] + a.fresh * v;
    if (a.last) a.last[i] = v;
    a.out[i] = v * a.deviation;
}

struct Condition {
    // [1 + 2 channels, frames, plane] in up to two slots: mask, masked faces, whole faces.
    float* out[2];
    // [plane].
    const float* mask;
    // Of the encoder, for the masked and then the whole faces of the new frames, [2 n, channels, plane], and what they are sampled by.
    const float *mean, *log_variance, *epsilon;
    // Of the frames that are known, [1 + 2 channels, kept, plane].
    const float* known;
    int channels, frames, kept, plane;
    float scale;
};

// What a clip is painted by: a sample of the encoder's posterior, beside the mask.
KERNEL(condition, Condition) {
    i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= (i64)(1 + 2 * a.channels) * a.frames * a.plane) return;
    int at = (int)(i % a.plane), frame = (int)(i / a.plane % a.frames), channel = (int)(i / a.plane / a.frames);
    float v;
    if (frame < a.kept) {
        v = a.known[((i64)channel * a.kept + frame) * a.plane + at];
    } else if (channel == 0) {
        v = a.mask[at];
    } else {
        int half = (channel - 1) / a.channels, fresh = a.frames - a.kept;
        i64 from = ((i64)(half * fresh + frame - a.kept) * a.channels + (channel - 1) % a.channels) * a.plane + at;
        v = (a.mean[from] + expf(0.5f * a.log_variance[from]) * a.epsilon[from]) * a.scale;
    }
    for (int k = 0; k < 2; k++)
        if (a.out[k]) a.out[k][i] = v;
}

struct Plain {
    // [frames - kept, channels, plane].
    float* out;
    // [channels, frames, plane].
    const float* latent;
    int channels, frames, kept, plane;
    float scale;
};

// The latents of the new frames as the decoder takes them.
KERNEL(plain, Plain) {
    i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= (i64)(a.frames - a.kept) * a.channels * a.plane) return;
    int at = (int)(i % a.plane), channel = (int)(i / a.plane % a.channels), frame = (int)(i / a.plane / a.channels);
    a.out[i] = a.latent[((i64)channel * a.frames + a.kept + frame) * a.plane + at] * a.scale;
}

struct Finite {
    const float* values;
    // 1 once one of them is not finite.
    u32* found;
    i64 count;
};

// Whether a network said only numbers.
KERNEL(all_finite, Finite) {
    i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= a.count) return;
    if ((__float_as_uint(a.values[i]) & 0x7f800000u) == 0x7f800000u) atomicOr(a.found, 1u);
}
