// Noise::normal of engines/src/engine/noise.rs, one number at a time: Philox counts, so any of its numbers is at hand.
#ifndef LIPSTREAM_NOISE_H
#define LIPSTREAM_NOISE_H

// A generator as it stands; the number that is left of a pair is used first.
struct Noise {
    u64 seed, pairs;
    float spare;
    int has_spare;
};

// Two numbers of 0..1 for a pair: Philox4x32 of ten rounds.
__device__ __forceinline__ void uniform(u64 seed, u64 pair, double* first, double* second) {
    u32 a = (u32)pair, b = (u32)(pair >> 32), c = 0, d = 0, k = (u32)seed, l = (u32)(seed >> 32);
    UNROLL for (int round = 0; round < 10; round++) {
        u64 one = (u64)0xd2511f53u * a, other = (u64)0xcd9e8d57u * c;
        u32 b0 = b, d0 = d;
        a = (u32)(other >> 32) ^ b0 ^ k;
        b = (u32)other;
        c = (u32)(one >> 32) ^ d0 ^ l;
        d = (u32)one;
        k += 0x9e3779b9u;
        l += 0xbb67ae85u;
    }
    *first = (double)(((u64)b << 32 | a) >> 11) / 9007199254740992.0;
    *second = (double)(((u64)d << 32 | c) >> 11) / 9007199254740992.0;
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
    double first, second, sine, cosine;
    uniform(noise.seed, noise.pairs + (u64)(i / 2), &first, &second);
    double radius = sqrt(-2.0 * natural_log(1.0 - first));
    turn(second, &sine, &cosine);
    return (float)(radius * (i % 2 ? sine : cosine));
}

#endif
