/* Products of a few dozen tokens with a layer's weights: out = a w^T (+ bias) (+ add).
 *
 * The weights (outputs, depth) lie packed in panels of PANEL outputs, (panels, depth, PANEL), zeros beyond the last output,
 * so that one vector of them meets one number of a token at a time. Every result is one sum over `depth`, in order: it
 * depends on neither the number of tokens nor on how these are shared among threads.
 */
#ifndef VMRNN_PRODUCT_H
#define VMRNN_PRODUCT_H

#include "simd.h"

#define PANEL (2 * LANES)
#if VECTOR_BYTES == 64 || defined(__ARM_NEON)
#define PRODUCT_ROWS 12 /* sums in 24 of 32 registers */
#else
#define PRODUCT_ROWS 6 /* in 12 of 16 */
#endif

INLINE void product_tile(const int rows, const float *a, size_t a_stride, const float *panel, int depth, float *out,
                         size_t out_stride, int columns, const float *bias, const float *add) {
    const int first = columns < LANES ? columns : LANES, second = columns - first < LANES ? columns - first : LANES;
    vec sums[PRODUCT_ROWS][2];
    vec start[2] = {{0}};
    if (bias) {
        start[0] = load_some(bias, first);
        if (second) start[1] = load_some(bias + LANES, second);
    }
    UNROLL(16)
    for (int r = 0; r < rows; r++) sums[r][0] = start[0], sums[r][1] = start[1];
    for (int k = 0; k < depth; k++) {
        const vec left = load(panel + (size_t)k * PANEL), right = load(panel + (size_t)k * PANEL + LANES);
        UNROLL(16)
        for (int r = 0; r < rows; r++) {
            const float number = a[r * a_stride + k];
            sums[r][0] += left * number;
            sums[r][1] += right * number;
        }
    }
    UNROLL(16)
    for (int r = 0; r < rows; r++) {
        float *row = out + r * out_stride;
        if (add) {
            const float *other = add + r * out_stride;
            sums[r][0] += load_some(other, first);
            if (second) sums[r][1] += load_some(other + LANES, second);
        }
        store_some(row, sums[r][0], first);
        if (second) store_some(row + LANES, sums[r][1], second);
    }
}

/* a (rows, depth), out and add (rows, outputs); add may be NULL, bias (outputs) too. */
static void product(const float *a, size_t a_stride, int rows, const float *packed, int depth, int outputs, float *out,
                    size_t out_stride, const float *bias, const float *add) {
    for (int c = 0; c < outputs; c += PANEL) {
        const float *panel = packed + (size_t)c * depth, *start = bias ? bias + c : NULL;
        const int columns = outputs - c < PANEL ? outputs - c : PANEL;
        int r = 0;
#define TILE_OF(rows)                                                                                                  \
    product_tile(rows, a + r * a_stride, a_stride, panel, depth, out + r * out_stride + c, out_stride, columns, start, \
                 add ? add + r * out_stride + c : NULL)
        for (; r + PRODUCT_ROWS <= rows; r += PRODUCT_ROWS) TILE_OF(PRODUCT_ROWS);
        for (; r + 4 <= rows; r += 4) TILE_OF(4);
        for (; r < rows; r++) TILE_OF(1);
#undef TILE_OF
    }
}

#endif
