// Noise::normal of engines/src/engine/noise.rs, one number at a time: SplitMix64 counts, so any of its numbers is at hand.
#ifndef LIPSTREAM_NOISE_H
#define LIPSTREAM_NOISE_H

// A generator as it stands; the number that is left of a pair is used first.
struct Noise {
    u64 state;
    float spare;
    int has_spare;
};

__device__ __forceinline__ double uniform(u64 state) {
    u64 z = state;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return (double)((z ^ (z >> 31)) >> 11) / 9007199254740992.0;
}

// The natural logarithm of a normal number: ln m = 2 artanh((m - 1) / (m + 1)) for a mantissa in 0.7..1.4.
__device__ __forceinline__ double natural_log(double v) {
    union {
        double number;
        u64 bits;
    } u;
    u.number = v;
    u64 bits = u.bits - 0x3fe6a09e667f3bcdull;
    double exponent = (double)((i64)bits >> 52);
    u.bits = (bits & 0x000fffffffffffffull) + 0x3fe6a09e667f3bcdull;
    double s = (u.number - 1.0) / (u.number + 1.0), q = s * s, series = 2.0 / 23.0;
    UNROLL for (int k = 21; k > 0; k -= 2) series = 2.0 / (double)k + q * series;
    return exponent * 0.69314718055994530942 + s * series;
}

// Sine and cosine of a part of a turn, 0..1, by their series within an eighth of a turn.
__device__ __forceinline__ void turn(double part, double* sine, double* cosine) {
    int quarter = (int)(part * 4.0 + 0.5);
    double x = (part - (double)quarter * 0.25) * 6.28318530717958647692, q = x * x, s = 1.0, c = 1.0;
    UNROLL for (int k = 18; k > 0; k -= 2) {
        s = 1.0 - q * s * (1.0 / (double)(k * (k + 1)));
        c = 1.0 - q * c * (1.0 / (double)(k * (k - 1)));
    }
    s = x * s;
    int side = quarter & 3;
    *sine = side == 0 ? s : side == 1 ? c : side == 2 ? -s : -c;
    *cosine = side == 0 ? c : side == 1 ? -s : side == 2 ? -c : s;
}

// The number `i` places on.
__device__ __forceinline__ float normal(const Noise& noise, i64 i) {
    if (noise.has_spare) {
        if (i == 0) return noise.spare;
        i--;
    }
    u64 step = 0x9e3779b97f4a7c15ull, first = noise.state + (u64)(i / 2 * 2 + 1) * step;
    double radius = sqrt(-2.0 * natural_log(1.0 - uniform(first))), sine, cosine;
    turn(uniform(first + step), &sine, &cosine);
    return (float)(radius * (i % 2 ? sine : cosine));
}

#endif
