/* One vector type for every instruction set, and the elementary functions the kernels need.
 *
 * The arithmetic operators are the vector extensions of GCC and Clang; only what those lack (maximum, scaling by a power
 * of two) has a line per instruction set. Compile with -fno-math-errno -fno-trapping-math -ffinite-math-only
 * -fno-signed-zeros, but never with -ffast-math: reassociation would cancel the rounding trick in vexp2 and vexp.
 */
#ifndef VMRNN_SIMD_H
#define VMRNN_SIMD_H

#include <stdint.h>
#include <string.h>

#if defined(__AVX512F__)
#define VECTOR_BYTES 64
#elif defined(__AVX2__)
#define VECTOR_BYTES 32
#else
#define VECTOR_BYTES 16
#endif
#define LANES (VECTOR_BYTES / 4)

#if defined(__x86_64__) || defined(__i386__)
#include <immintrin.h>
#elif defined(__ARM_NEON)
#include <arm_neon.h>
#endif

typedef float vec __attribute__((vector_size(VECTOR_BYTES), may_alias));
typedef int32_t ivec __attribute__((vector_size(VECTOR_BYTES), may_alias));
typedef float unaligned_vec __attribute__((vector_size(VECTOR_BYTES), aligned(4), may_alias));

#define INLINE static inline __attribute__((always_inline))

#define PRAGMA(x) _Pragma(#x)
#if defined(__clang__)
#define UNROLL(n) PRAGMA(unroll n)
#else
#define UNROLL(n) PRAGMA(GCC unroll n)
#endif

INLINE vec splat(float a) { return a - (vec){0}; }

INLINE vec load(const float *p) { return *(const unaligned_vec *)p; }
INLINE void store(float *p, vec v) { *(unaligned_vec *)p = v; }

/* The last block of channels may be narrower than a vector: missing lanes read as zero and are not written. */
INLINE vec load_some(const float *p, int lanes) {
    if (lanes == LANES) return load(p);
    vec v = {0};
    memcpy(&v, p, (size_t)lanes * sizeof(float));
    return v;
}
INLINE void store_some(float *p, vec v, int lanes) {
    if (lanes == LANES) store(p, v);
    else memcpy(p, &v, (size_t)lanes * sizeof(float));
}

#if defined(__AVX512F__)
INLINE vec vmax(vec a, vec b) { return (vec)_mm512_max_ps((__m512)a, (__m512)b); }
INLINE vec vmin(vec a, vec b) { return (vec)_mm512_min_ps((__m512)a, (__m512)b); }
#elif defined(__AVX2__)
INLINE vec vmax(vec a, vec b) { return (vec)_mm256_max_ps((__m256)a, (__m256)b); }
INLINE vec vmin(vec a, vec b) { return (vec)_mm256_min_ps((__m256)a, (__m256)b); }
#elif defined(__SSE2__)
INLINE vec vmax(vec a, vec b) { return (vec)_mm_max_ps((__m128)a, (__m128)b); }
INLINE vec vmin(vec a, vec b) { return (vec)_mm_min_ps((__m128)a, (__m128)b); }
#elif defined(__ARM_NEON)
INLINE vec vmax(vec a, vec b) { return (vec)vmaxq_f32((float32x4_t)a, (float32x4_t)b); }
INLINE vec vmin(vec a, vec b) { return (vec)vminq_f32((float32x4_t)a, (float32x4_t)b); }
#else
INLINE vec vmax(vec a, vec b) { ivec m = a > b; return (vec)(((ivec)a & m) | ((ivec)b & ~m)); }
INLINE vec vmin(vec a, vec b) { ivec m = a < b; return (vec)(((ivec)a & m) | ((ivec)b & ~m)); }
#endif

/* All bits of the lanes that are NaN, by their bits: compiled for finite numbers, a comparison would see none. */
INLINE ivec is_nan(vec v) { return ((ivec)v & 0x7fffffff) > 0x7f800000; }

INLINE float sum_lanes(vec v) {
#if defined(__AVX512F__)
    return _mm512_reduce_add_ps((__m512)v);
#elif defined(__AVX2__)
    const __m128 half = _mm256_castps256_ps128((__m256)v) + _mm256_extractf128_ps((__m256)v, 1);
    return (half[0] + half[1]) + (half[2] + half[3]);
#else
    return (v[0] + v[1]) + (v[2] + v[3]);
#endif
}

/* Adding and subtracting 1.5 * 2^23 rounds to the nearest integer, which is then also found in the low bits. */
#define ROUNDING_MAGIC 12582912.0f
#define LOG2_E 1.4426950408889634f
#define LN_2 0.6931471805599453f

/* 2^r for r in [-0.5, 0.5]. Relative error 2e-7; exactly 1 at 0, because a decay near 1 is multiplied thousands of times
 * and a bias there would drift. */
INLINE vec exp2_fraction(vec r) {
    vec q = 1.326472725e-03f * r + 9.671512786e-03f;
    q = q * r + 5.550733744e-02f;
    q = q * r + 2.402224208e-01f;
    q = q * r + 6.931469776e-01f;
    return q * r + 1.0f;
}

/* 2^t for t <= 127; what would be below 2^-126 comes out near it, or as 0. */
#if defined(__AVX512F__)
INLINE vec vexp2(vec t) {
    const __m512 n = _mm512_roundscale_ps((__m512)t, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    return (vec)_mm512_scalef_ps((__m512)exp2_fraction(t - (vec)n), n);
}
#else
INLINE vec vexp2(vec t) {
    t = vmax(t, splat(-126.0f));
    const vec rounded = t + ROUNDING_MAGIC;
    const vec q = exp2_fraction(t - (rounded - ROUNDING_MAGIC));
    return (vec)((ivec)q + ((ivec)rounded << 23)); /* add the integer part to the exponent */
}
#endif

/* e^x for any finite x, clamped to the range of float32. Two-step reduction (Cody and Waite). */
INLINE vec vexp(vec x) {
    x = vmin(vmax(x, splat(-87.0f)), splat(87.0f));
    vec rounded = x * LOG2_E + ROUNDING_MAGIC;
    vec n = rounded - ROUNDING_MAGIC;
    vec r = x - n * 0.693359375f;
    r = r + n * 2.12194440e-4f;
    vec q = 1.384364651e-03f * r + 8.374161544e-03f;
    q = q * r + 4.166800245e-02f;
    q = q * r + 1.666643119e-01f;
    q = q * r + 4.999999421e-01f;
    q = q * r + 1.000000032e+00f;
    q = q * r + 1.0f;
    return (vec)((ivec)q + ((ivec)rounded << 23));
}

/* log(1 + e^x) = max(x, 0) + log1p(e^-|x|); log1p(u) / u on [0, 1] is a polynomial, so that nothing divides. */
INLINE vec vsoftplus(vec x) {
    vec u = vexp(-vmax(x, -x));
    vec q = -3.244024532e-03f * u + 1.985146163e-02f;
    q = q * u - 5.695953758e-02f;
    q = q * u + 1.060365579e-01f;
    q = q * u - 1.530559352e-01f;
    q = q * u + 1.967593978e-01f;
    q = q * u - 2.495413381e-01f;
    q = q * u + 3.332996244e-01f;
    q = q * u - 4.999990242e-01f;
    q = q * u + 1.0f;
    return vmax(x, splat(0.0f)) + q * u;
}

INLINE vec vsigmoid(vec x) { return 1.0f / (1.0f + vexp(-x)); }
/* Near 0 the series, as the difference would lose what little there is. */
INLINE vec vtanh(vec x) {
    const vec square = x * x;
    vec q = 2.186948854e-02f * square - 5.396825397e-02f;
    q = q * square + 1.333333333e-01f;
    q = q * square - 3.333333333e-01f;
    q = (q * square + 1.0f) * x;
    const vec far = 1.0f - 2.0f / (1.0f + vexp(2.0f * x));
    const ivec near = square < splat(0.0625f);
    return (vec)(((ivec)q & near) | ((ivec)far & ~near));
}
INLINE vec vsilu(vec x) { return x * vsigmoid(x); }
/* d silu(x) / dx */
INLINE vec vsilu_slope(vec x) {
    vec s = vsigmoid(x);
    return s * (1.0f + x * (1.0f - s));
}

#endif
