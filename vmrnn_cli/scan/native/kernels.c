/* The CPU kernels of SS2D: selective scan in four directions, depthwise convolution + SiLU, LayerNorm + gate.
 *
 * B batch, H x W grid of tokens, L = H * W, D inner width (channels), N states (up to 16), R rank of dt, K = 4
 * directions: 0 rows, 1 columns, 2 rows reversed, 3 columns reversed. Everything is float32 and channels last. Vectors run over
 * channels: a "block" is LANES channels, the last one may be narrower.
 *
 * Every kernel is `void kernel(struct job *)`: all threads of a team call it with the same job and take task numbers
 * from job->next until none is left. A task writes what no other task writes and is computed in one order, so results
 * do not depend on the number of threads. No runtime is linked; who makes the team is the caller's business.
 */
#include <stdlib.h>
#if defined(_WIN32)
#include <malloc.h>
#endif
#if defined(__x86_64__)
#include <cpuid.h>
#endif

#include "product.h"
#include "simd.h"

#if defined(_WIN32)
#define EXPORT __declspec(dllexport)
#else
#define EXPORT __attribute__((visibility("default")))
#endif

#define K 4
#define TILE 32        /* tokens handled together; also the distance of the states kept for the backward pass */
#define MAX_RANK 128
#define MAX_STATES 16
#if VECTOR_BYTES == 64
#define FORWARD_STATES 16 /* the most states that a pass over a tile keeps in registers */
#define BACKWARD_STATES 8
#else
#define FORWARD_STATES 8
#define BACKWARD_STATES 4
#endif

INLINE int take_task(int32_t *next, int32_t tasks) {
    int task = __atomic_fetch_add(next, 1, __ATOMIC_RELAXED);
    return task < tasks ? task : -1;
}

INLINE int min_int(int a, int b) { return a < b ? a : b; }

static void *workspace(size_t floats, int32_t *failed) {
    void *p = NULL;
    size_t bytes = (floats * sizeof(float) + 63) & ~(size_t)63;
#if defined(_WIN32)
    p = _aligned_malloc(bytes ? bytes : 64, 64);
#else
    if (posix_memalign(&p, 64, bytes ? bytes : 64)) p = NULL;
#endif
    if (!p) __atomic_store_n(failed, 1, __ATOMIC_RELAXED);
    return p;
}

static void leave_workspace(void *p) {
#if defined(_WIN32)
    _aligned_free(p);
#else
    free(p);
#endif
}

/* ---------------------------------------------------------------------------------------------------------------- */
/* Selective scan                                                                                                    */

struct scan_job {
    int32_t next, tasks, failed;
    int32_t B, H, W, D, R, N;
    int32_t groups;         /* backward: tasks per batch element, each a range of channel blocks */
    int32_t keep;           /* forward: fill `states` for the backward pass */
    const float *x;         /* (B, L, D) */
    const float *x_dbl;     /* (B, L, K, R + 2N): dt_r, B, C */
    const float *dt_weight; /* (K, D, R) */
    const float *dt_bias;   /* (K, D) */
    const float *A_logs;    /* (K, D, N) */
    const float *Ds;        /* (K, D) */
    float *y;               /* (B, L, D) */
    float *states;          /* (B, blocks, K, tiles, N, LANES): the state before each tile */
    const float *dy;        /* (B, L, D) */
    float *dx;              /* (B, L, D) */
    float *dx_dbl;          /* (groups, B, L, K, R + 2N), to be summed over groups */
    float *d_weights;       /* (B, D, K * (R + 1 + N + 1)): dt_weight, dt_bias, A_logs, Ds; to be summed over B */
};

EXPORT int vmrnn_lanes(void) { return LANES; }
EXPORT int vmrnn_tile(void) { return TILE; }

/* States of the next pass over a tile, of those left. A pass is compiled for each of these numbers: its loops unroll. */
INLINE int states_of_pass(int left, int most) {
    const int states = left >= 16 ? 16 : left >= 8 ? 8 : left >= 4 ? 4 : 1;
    return min_int(states, most);
}

/* Tokens l0 .. l0 + count - 1 of direction k, as positions in the row-major grid. */
static void walk(int *position, int k, int l0, int count, int H, int W) {
    const int L = H * W, reversed = k >= 2, columns = k & 1;
    const int l = reversed ? L - 1 - l0 : l0;
    int p = columns ? (l % H) * W + l / H : l;
    const int step = (columns ? W : 1) * (reversed ? -1 : 1);
    for (int t = 0; t < count; t++) {
        position[t] = p;
        p += step;
        if (p >= L) p -= L - 1; /* from the foot of a column to the head of the next */
        if (p < 0) p += L - 1;
    }
}

/* What direction k holds for one block of channels, with the channels across the lanes. */
struct block_weights {
    vec A[MAX_STATES]; /* times log2(e), for vexp2 */
    vec bias;
    vec dt[MAX_RANK];
};

/* Rows of `width` floats, one a channel, to vectors across channels; lanes beyond the last channel become zero. All of it
 * is written before any of it is read as a vector: a vector load right behind narrower stores waits for them. */
static void transpose(vec *out, const float *rows, int width, int lanes) {
    if (lanes < LANES) memset(out, 0, (size_t)width * sizeof(vec));
    for (int i = 0; i < lanes; i++)
        for (int j = 0; j < width; j++) ((float *)(out + j))[i] = rows[i * width + j];
}

static void load_block(struct block_weights *w, const struct scan_job *j, int k, int c0, int lanes) {
    const size_t row = (size_t)k * j->D + c0;
    const int N = j->N;
    transpose(w->A, j->A_logs + row * N, N, lanes);
    transpose(w->dt, j->dt_weight + row * j->R, j->R, lanes);
    w->bias = load_some(j->dt_bias + row, lanes);
    for (int n = 0; n < N; n++) w->A[n] = vexp(w->A[n]) * -LOG2_E;
}

INLINE vec expand_dt(const struct block_weights *w, const float *dt_r, int R) {
    vec dt = w->bias;
    for (int r = 0; r < R; r++) dt += w->dt[r] * dt_r[r];
    return dt;
}

/* One pass over the tokens of a tile: `states` states from n0 on move along them and add what they give to `out`. */
INLINE void scan_forward_pass(const struct block_weights *w, const float *x_dbl, size_t stride, int R, int N, int n0,
                              const int states, const int *position, int count, const vec *delta, const vec *u,
                              vec *state, vec *out, const int *ahead, int ahead_count, const vec *xs, const vec *ys) {
    vec h[MAX_STATES];
    UNROLL(16)
    for (int n = 0; n < states; n++) h[n] = state[n0 + n];
    for (int t = 0; t < count; t++) {
        if (t < ahead_count) { /* bring in the next tile while this one is computed */
            const char *next = (const char *)(x_dbl + ahead[t] * stride);
            __builtin_prefetch(next);
            __builtin_prefetch(next + 64);
            __builtin_prefetch(next + 128);
            __builtin_prefetch(xs + ahead[t]);
            __builtin_prefetch(ys + ahead[t]);
        }
        const float *B = x_dbl + position[t] * stride + R + n0, *C = B + N;
        const vec d = delta[t], ut = u[t];
        vec even = out[t], odd = splat(0.0f); /* two chains, to hide the latency */
        UNROLL(16)
        for (int n = 0; n < states; n++) {
            h[n] = vexp2(d * w->A[n0 + n]) * h[n] + ut * B[n];
            if (n & 1) odd += h[n] * C[n];
            else even += h[n] * C[n];
        }
        out[t] = even + odd;
    }
    UNROLL(16)
    for (int n = 0; n < states; n++) state[n0 + n] = h[n];
}

/* All four directions of one block of channels of one batch element, added up in y. */
static void scan_forward_task(const struct scan_job *j, int b, int block, vec *buffer) {
    const int L = j->H * j->W, D = j->D, R = j->R, N = j->N, S = R + 2 * N, c0 = block * LANES;
    const int lanes = min_int(LANES, D - c0), blocks = (D + LANES - 1) / LANES, tiles = (L + TILE - 1) / TILE;
    const float *x = j->x + (size_t)b * L * D + c0;
    float *y = j->y + (size_t)b * L * D + c0;
    vec *xs = buffer, *ys = buffer + L; /* contiguous copies: a column walk over rows of D floats would miss the cache */
    struct block_weights w;

    vec skip = splat(0.0f);
    for (int k = 0; k < K; k++) skip += load_some(j->Ds + (size_t)k * D + c0, lanes);
    for (int l = 0; l < L; l++) {
        xs[l] = load_some(x + (size_t)l * D, lanes);
        ys[l] = xs[l] * skip;
    }
    for (int k = 0; k < K; k++) {
        const float *x_dbl = j->x_dbl + (size_t)b * L * K * S + (size_t)k * S;
        const size_t stride = (size_t)K * S;
        vec *kept = j->keep ? (vec *)j->states + (((size_t)b * blocks + block) * K + k) * tiles * N : NULL;
        int position[2][TILE];
        vec state[MAX_STATES], delta[TILE], u[TILE], out[TILE];
        load_block(&w, j, k, c0, lanes);
        for (int n = 0; n < N; n++) state[n] = splat(0.0f);
        walk(position[0], k, 0, min_int(TILE, L), j->H, j->W);

        for (int tile = 0; tile < tiles; tile++) {
            const int l0 = tile * TILE, count = min_int(TILE, L - l0);
            const int *here = position[tile & 1], *ahead = position[~tile & 1];
            int ahead_count = min_int(TILE, L - l0 - TILE);
            if (ahead_count > 0) walk(position[~tile & 1], k, l0 + TILE, ahead_count, j->H, j->W);
            if (kept) memcpy(kept + (size_t)tile * N, state, N * sizeof(vec));
            for (int t = 0; t < count; t++) {
                const int p = here[t];
                delta[t] = vsoftplus(expand_dt(&w, x_dbl + p * stride, R));
                u[t] = delta[t] * xs[p];
                out[t] = ys[p];
            }
#define PASS(states)                                                                                                  \
    scan_forward_pass(&w, x_dbl, stride, R, N, n0, states, here, count, delta, u, state, out, ahead, ahead_count, xs, ys)
            for (int n0 = 0, states; n0 < N; n0 += states) {
                states = states_of_pass(N - n0, FORWARD_STATES);
                if (FORWARD_STATES == 16 && states == 16) PASS(16);
                else if (states == 8) PASS(8);
                else if (states == 4) PASS(4);
                else PASS(1);
            }
#undef PASS
            for (int t = 0; t < count; t++) ys[here[t]] = out[t];
        }
    }
    for (int l = 0; l < L; l++) store_some(y + (size_t)l * D, ys[l], lanes);
}

EXPORT void vmrnn_scan_forward(struct scan_job *j) {
    const int blocks = (j->D + LANES - 1) / LANES;
    vec *buffer = workspace((size_t)2 * j->H * j->W * LANES, &j->failed);
    if (!buffer) return;
    for (int task; (task = take_task(&j->next, j->tasks)) >= 0;)
        scan_forward_task(j, task / blocks, task % blocks, buffer);
    leave_workspace(buffer);
}

/* What the backward pass carries for one block of channels from tile to tile. */
struct block_gradient {
    vec state[MAX_STATES]; /* gradient of the state after the tile */
    vec A[MAX_STATES], bias, dt[MAX_RANK];
};

/* Sums over all channels are kept a vector wide until the tile is done, and reduced once. */
struct tile_sums {
    vec dt_r[TILE][MAX_RANK];
    vec B[TILE][MAX_STATES], C[TILE][MAX_STATES];
};

struct backward_buffers {
    struct tile_sums sums;
    vec decay[TILE][BACKWARD_STATES], h[TILE + 1][BACKWARD_STATES];
};

/* One pass of the function below: `states` states from n0 on. */
INLINE void scan_backward_pass(const struct block_weights *w, struct block_gradient *g, struct backward_buffers *buf,
                               const vec *kept, const float *x_dbl, size_t stride, int R, int N, int n0,
                               const int states, const int *position, int count, const vec *delta, const vec *u,
                               const vec *dyt, vec *du, vec *ddelta) {
    vec h[BACKWARD_STATES];
    UNROLL(16)
    for (int n = 0; n < states; n++) buf->h[0][n] = h[n] = kept[n0 + n];
    for (int t = 0; t < count; t++) {
        const float *B = x_dbl + position[t] * stride + R + n0;
        UNROLL(16)
        for (int n = 0; n < states; n++) {
            vec a = vexp2(delta[t] * w->A[n0 + n]);
            buf->decay[t][n] = a;
            buf->h[t + 1][n] = h[n] = a * h[n] + u[t] * B[n];
        }
    }
    vec gs[BACKWARD_STATES], dA[BACKWARD_STATES];
    UNROLL(16)
    for (int n = 0; n < states; n++) gs[n] = g->state[n0 + n], dA[n] = g->A[n0 + n];
    for (int t = count - 1; t >= 0; t--) {
        const float *B = x_dbl + position[t] * stride + R + n0, *C = B + N;
        const vec d = delta[t], ut = u[t], dyv = dyt[t];
        vec du0 = du[t], dd0 = ddelta[t];
        vec *sum_B = buf->sums.B[t] + n0, *sum_C = buf->sums.C[t] + n0;
        UNROLL(16)
        for (int n = 0; n < states; n++) {
            vec s = gs[n] + dyv * C[n];
            sum_C[n] += dyv * h[n];
            sum_B[n] += s * ut;
            du0 += s * B[n];
            s *= buf->decay[t][n];
            gs[n] = s;
            h[n] = buf->h[t][n];
            s *= h[n];
            dd0 += s * w->A[n0 + n];
            dA[n] += s * d;
        }
        du[t] = du0;
        ddelta[t] = dd0;
    }
    UNROLL(16)
    for (int n = 0; n < states; n++) g->state[n0 + n] = gs[n], g->A[n0 + n] = dA[n];
}

/* One tile of one block: recompute the states from the kept one, then walk backwards. With g the gradient of s_l:
 *   g_l = dy_l C_l + exp(delta A)_{l+1} g_{l+1};   dC = dy s;   dB = g u;   du = <g, B>
 *   ddelta = <g s_{l-1} exp(delta A), A> + du x;   dA = sum_l g s_{l-1} exp(delta A) delta */
static void scan_backward_tile(const struct scan_job *j, const struct block_weights *w, struct block_gradient *g,
                               struct backward_buffers *buf, const vec *kept, const float *x_dbl, size_t stride,
                               const float *x, const float *dy, float *dx, const int *position, int count, int lanes) {
    const int D = j->D, R = j->R, N = j->N;
    vec delta[TILE], slope[TILE], xt[TILE], u[TILE], dyt[TILE], du[TILE], ddelta[TILE];
    for (int t = 0; t < count; t++) {
        const size_t p = position[t];
        const vec dt = expand_dt(w, x_dbl + p * stride, R);
        delta[t] = vsoftplus(dt);
        slope[t] = vsigmoid(dt); /* not 1 - exp(-delta), which cancels for small steps */
        xt[t] = load_some(x + p * D, lanes);
        dyt[t] = load_some(dy + p * D, lanes);
        u[t] = delta[t] * xt[t];
        du[t] = ddelta[t] = splat(0.0f);
    }
#define PASS(states)                                                                                                  \
    scan_backward_pass(w, g, buf, kept, x_dbl, stride, R, N, n0, states, position, count, delta, u, dyt, du, ddelta)
    for (int n0 = 0, states; n0 < N; n0 += states) {
        states = states_of_pass(N - n0, BACKWARD_STATES);
        if (states == BACKWARD_STATES) PASS(BACKWARD_STATES);
        else if (states == 4) PASS(4);
        else PASS(1);
    }
#undef PASS
    for (int t = 0; t < count; t++) {
        const size_t p = position[t];
        const float *dt_r = x_dbl + p * stride;
        store_some(dx + p * D, load_some(dx + p * D, lanes) + du[t] * delta[t], lanes);
        const vec d_dt = (ddelta[t] * LN_2 + du[t] * xt[t]) * slope[t]; /* w->A carries log2(e) */
        g->bias += d_dt;
        for (int r = 0; r < R; r++) {
            g->dt[r] += d_dt * dt_r[r];
            buf->sums.dt_r[t][r] += d_dt * w->dt[r];
        }
    }
}

static void write_gradient(const struct scan_job *j, const struct block_weights *w, const struct block_gradient *g,
                           int b, int k, int c0, int lanes) {
    const int R = j->R, N = j->N, per_direction = R + 1 + N + 1;
    for (int i = 0; i < lanes; i++) {
        float *out = j->d_weights + (((size_t)b * j->D + c0 + i) * K + k) * per_direction;
        for (int r = 0; r < R; r++) out[r] = g->dt[r][i];
        out[R] = g->bias[i];
        for (int n = 0; n < N; n++) out[R + 1 + n] = g->A[n][i] * w->A[n][i] * LN_2; /* A = -exp(A_logs) */
    }
}

/* Blocks first .. last - 1 of one batch element. Tiles outside, blocks inside: the sums over channels stay in cache. */
static void scan_backward_task(const struct scan_job *j, int b, int group, int first, int last, float *buffer) {
    const int L = j->H * j->W, D = j->D, R = j->R, N = j->N, S = R + 2 * N;
    const int blocks = (D + LANES - 1) / LANES, tiles = (L + TILE - 1) / TILE, per_direction = R + 1 + N + 1;
    const size_t stride = (size_t)K * S, rows = (size_t)b * L;
    struct backward_buffers *buf = (struct backward_buffers *)buffer;
    struct block_weights *w = (struct block_weights *)(buf + 1);
    struct block_gradient *g = (struct block_gradient *)(w + blocks);
    const float *x = j->x + rows * D, *dy = j->dy + rows * D;
    float *dx = j->dx + rows * D, *dx_dbl = j->dx_dbl + ((size_t)group * j->B * L + rows) * stride;

    for (int block = first; block < last; block++) { /* the skip connection: y += (sum of Ds) x */
        const int c0 = block * LANES, lanes = min_int(LANES, D - c0);
        vec skip = splat(0.0f), dD = splat(0.0f);
        for (int k = 0; k < K; k++) skip += load_some(j->Ds + (size_t)k * D + c0, lanes);
        for (int l = 0; l < L; l++) {
            const vec d = load_some(dy + (size_t)l * D + c0, lanes);
            dD += d * load_some(x + (size_t)l * D + c0, lanes);
            store_some(dx + (size_t)l * D + c0, d * skip, lanes);
        }
        for (int i = 0; i < lanes; i++)
            for (int k = 0; k < K; k++)
                j->d_weights[(((size_t)b * D + c0 + i) * K + k + 1) * per_direction - 1] = dD[i];
    }
    for (int k = 0; k < K; k++) {
        for (int block = first; block < last; block++) {
            const int c0 = block * LANES;
            load_block(w + block, j, k, c0, min_int(LANES, D - c0));
            memset(g + block, 0, sizeof *g);
        }
        const float *x_dbl = j->x_dbl + rows * stride + (size_t)k * S;
        for (int tile = tiles - 1; tile >= 0; tile--) {
            const int l0 = tile * TILE, count = min_int(TILE, L - l0);
            int position[TILE];
            walk(position, k, l0, count, j->H, j->W);
            for (int t = 0; t < count; t++) {
                memset(buf->sums.dt_r[t], 0, (size_t)R * sizeof(vec));
                memset(buf->sums.B[t], 0, (size_t)N * sizeof(vec));
                memset(buf->sums.C[t], 0, (size_t)N * sizeof(vec));
            }
            for (int block = first; block < last; block++) {
                const int c0 = block * LANES;
                const vec *kept = (const vec *)j->states + ((((size_t)b * blocks + block) * K + k) * tiles + tile) * N;
                scan_backward_tile(j, w + block, g + block, buf, kept, x_dbl, stride, x + c0, dy + c0,
                                   dx + c0, position, count, min_int(LANES, D - c0));
            }
            for (int t = 0; t < count; t++) {
                float *out = dx_dbl + position[t] * stride + (size_t)k * S;
                for (int r = 0; r < R; r++) out[r] = sum_lanes(buf->sums.dt_r[t][r]);
                for (int n = 0; n < N; n++) out[R + n] = sum_lanes(buf->sums.B[t][n]);
                for (int n = 0; n < N; n++) out[R + N + n] = sum_lanes(buf->sums.C[t][n]);
            }
        }
        for (int block = first; block < last; block++) {
            const int c0 = block * LANES;
            write_gradient(j, w + block, g + block, b, k, c0, min_int(LANES, D - c0));
        }
    }
}

EXPORT void vmrnn_scan_backward(struct scan_job *j) {
    const int blocks = (j->D + LANES - 1) / LANES;
    float *buffer = workspace((sizeof(struct backward_buffers) +
                               blocks * (sizeof(struct block_weights) + sizeof(struct block_gradient))) / sizeof(float),
                              &j->failed);
    if (!buffer) return;
    for (int task; (task = take_task(&j->next, j->tasks)) >= 0;) {
        const int group = task % j->groups;
        scan_backward_task(j, task / j->groups, group, blocks * group / j->groups, blocks * (group + 1) / j->groups,
                           buffer);
    }
    leave_workspace(buffer);
}

/* ---------------------------------------------------------------------------------------------------------------- */
/* Depthwise 3x3 convolution + SiLU                                                                                  */

struct conv_job {
    int32_t next, tasks, failed;
    int32_t B, H, W, D;
    int32_t bands;       /* forward: tasks per batch element, each a band of rows */
    int64_t stride;      /* floats from one token of x to the next (x may be one half of a wider tensor) */
    const float *x;      /* (B, L, D) */
    const float *weight; /* (D, 3, 3) */
    const float *bias;   /* (D) */
    float *y;            /* (B, L, D) */
    const float *dy;     /* (B, L, D) */
    float *dx;           /* (B, L, D) */
    float *d_weights;    /* (B, D, 10): weight, bias; to be summed over B */
};

static void load_taps(vec *taps, const struct conv_job *j, int c0, int lanes) {
    transpose(taps, j->weight + (size_t)c0 * 9, 9, lanes);
    taps[9] = load_some(j->bias + c0, lanes);
}

/* The convolution at (row, column) of an image whose neighbours are `down` and `right` floats away. */
INLINE vec convolve(const vec *taps, const float *image, int64_t stride, int row, int column, int H, int W, int lanes) {
    vec sum = taps[9];
    if (lanes == LANES && row > 0 && row < H - 1 && column > 0 && column < W - 1) { /* nearly everywhere: no questions */
        const float *corner = image + ((int64_t)(row - 1) * W + column - 1) * stride;
        UNROLL(3)
        for (int i = 0; i < 3; i++, corner += W * stride) {
            sum += taps[i * 3] * load(corner);
            sum += taps[i * 3 + 1] * load(corner + stride);
            sum += taps[i * 3 + 2] * load(corner + 2 * stride);
        }
        return sum;
    }
    for (int i = -1; i <= 1; i++) {
        if (row + i < 0 || row + i >= H) continue;
        const float *line = image + (int64_t)(row + i) * W * stride;
        for (int k = -1; k <= 1; k++)
            if (column + k >= 0 && column + k < W)
                sum += taps[(i + 1) * 3 + k + 1] * load_some(line + (column + k) * stride, lanes);
    }
    return sum;
}

/* Rows first .. last - 1 of one batch element. */
static void conv_forward_rows(const struct conv_job *j, int b, int first, int last) {
    const int H = j->H, W = j->W, D = j->D, L = H * W;
    const float *x = j->x + (size_t)b * L * j->stride;
    float *y = j->y + (size_t)b * L * D;
    vec taps[10];
    for (int c0 = 0; c0 < D; c0 += LANES) {
        const int lanes = min_int(LANES, D - c0);
        load_taps(taps, j, c0, lanes);
        for (int row = first; row < last; row++)
            for (int column = 0; column < W; column++)
                store_some(y + ((size_t)row * W + column) * D + c0,
                           vsilu(convolve(taps, x + c0, j->stride, row, column, H, W, lanes)), lanes);
    }
}

EXPORT void vmrnn_conv_forward(struct conv_job *j) {
    for (int task; (task = take_task(&j->next, j->tasks)) >= 0;) {
        const int band = task % j->bands;
        conv_forward_rows(j, task / j->bands, j->H * band / j->bands, j->H * (band + 1) / j->bands);
    }
}

/* One block of channels of one batch element: first the gradient before SiLU, then that convolved with the mirrored
 * kernel (for x) and with x (for the weights). */
static void conv_backward_task(const struct conv_job *j, int b, int c0, vec *before) {
    const int H = j->H, W = j->W, D = j->D, L = H * W, lanes = min_int(LANES, D - c0);
    const float *x = j->x + (size_t)b * L * j->stride + c0, *dy = j->dy + (size_t)b * L * D + c0;
    vec taps[10], mirrored[10], sums[10] = {{0}};
    load_taps(taps, j, c0, lanes);
    for (int tap = 0; tap < 9; tap++) mirrored[tap] = taps[8 - tap];
    mirrored[9] = splat(0.0f);
    for (int row = 0; row < H; row++)
        for (int column = 0; column < W; column++) {
            const int l = row * W + column;
            const vec d = load_some(dy + (size_t)l * D, lanes) *
                          vsilu_slope(convolve(taps, x, j->stride, row, column, H, W, lanes));
            before[l] = d;
            sums[9] += d;
            for (int i = -1; i <= 1; i++)
                for (int k = -1; k <= 1; k++)
                    if (row + i >= 0 && row + i < H && column + k >= 0 && column + k < W)
                        sums[(i + 1) * 3 + k + 1] += d * load_some(x + (int64_t)(l + i * W + k) * j->stride, lanes);
        }
    for (int row = 0; row < H; row++)
        for (int column = 0; column < W; column++)
            store_some(j->dx + ((size_t)b * L + row * W + column) * D + c0,
                       convolve(mirrored, (const float *)before, LANES, row, column, H, W, LANES), lanes);
    for (int i = 0; i < lanes; i++)
        for (int tap = 0; tap < 10; tap++) j->d_weights[((size_t)b * D + c0 + i) * 10 + tap] = sums[tap][i];
}

EXPORT void vmrnn_conv_backward(struct conv_job *j) {
    const int blocks = (j->D + LANES - 1) / LANES;
    vec *before = workspace((size_t)j->H * j->W * LANES, &j->failed);
    if (!before) return;
    for (int task; (task = take_task(&j->next, j->tasks)) >= 0;)
        conv_backward_task(j, task / blocks, task % blocks * LANES, before);
    leave_workspace(before);
}

/* ---------------------------------------------------------------------------------------------------------------- */
/* LayerNorm + gate: out = LayerNorm(y) * SiLU(z)                                                                    */

struct gate_job {
    int32_t next, tasks, failed;
    int32_t D;
    int64_t rows;        /* B * L */
    int64_t stride;      /* floats from one token of z to the next */
    float eps;
    const float *y;      /* (rows, D) */
    const float *z;      /* (rows, D) */
    const float *weight; /* (D) */
    const float *bias;   /* (D) */
    float *out;          /* (rows, D) */
    const float *dout;   /* (rows, D) */
    float *dy, *dz;      /* (rows, D) */
    float *d_weights;    /* (tasks, 2, D): weight, bias; to be summed over tasks */
};

struct moments { float mean, scale; };

static struct moments moments_of(const float *row, int D, float eps) {
    vec sum = splat(0.0f), squares = splat(0.0f);
    for (int c = 0; c < D; c += LANES) sum += load_some(row + c, min_int(LANES, D - c));
    const float mean = sum_lanes(sum) / D;
    for (int c = 0; c < D; c += LANES) {
        const int lanes = min_int(LANES, D - c);
        vec d = load_some(row + c, lanes) - mean;
        d = load_some((const float *)&d, lanes); /* the missing lanes do not count */
        squares += d * d;
    }
    return (struct moments){mean, 1.0f / __builtin_sqrtf(sum_lanes(squares) / D + eps)};
}

/* LayerNorm of a row, times SiLU(z) unless z is NULL. */
INLINE void norm_row(const float *y, const float *z, const float *weight, const float *bias, float eps, int D, float *out) {
    const struct moments m = moments_of(y, D, eps);
    for (int c = 0; c < D; c += LANES) {
        const int lanes = min_int(LANES, D - c);
        vec normed = (load_some(y + c, lanes) - m.mean) * m.scale * load_some(weight + c, lanes) +
                     load_some(bias + c, lanes);
        if (z) normed *= vsilu(load_some(z + c, lanes));
        store_some(out + c, normed, lanes);
    }
}

EXPORT void vmrnn_gate_forward(struct gate_job *j) {
    const int D = j->D;
    for (int task; (task = take_task(&j->next, j->tasks)) >= 0;)
        for (int64_t row = j->rows * task / j->tasks; row < j->rows * (task + 1) / j->tasks; row++)
            norm_row(j->y + row * D, j->z + row * j->stride, j->weight, j->bias, j->eps, D, j->out + row * D);
}

/* With n = (y - mean) * scale and e = dout silu(z) weight:  dy = scale (e - mean(e) - n mean(e n)) */
static void gate_backward_row(const struct gate_job *j, int64_t row, float *d_weight, float *d_bias) {
    const int D = j->D;
    const float *y = j->y + row * D, *z = j->z + row * j->stride, *dout = j->dout + row * D;
    const struct moments m = moments_of(y, D, j->eps);
    vec sum_e = splat(0.0f), sum_en = splat(0.0f);
    for (int c = 0; c < D; c += LANES) {
        const int lanes = min_int(LANES, D - c);
        const vec n = (load_some(y + c, lanes) - m.mean) * m.scale, zc = load_some(z + c, lanes);
        const vec weight = load_some(j->weight + c, lanes), d = load_some(dout + c, lanes), dn = d * vsilu(zc);
        const vec e = dn * weight;
        store_some(j->dz + row * D + c, d * (n * weight + load_some(j->bias + c, lanes)) * vsilu_slope(zc), lanes);
        store_some(j->dy + row * D + c, e, lanes);
        store_some(d_weight + c, load_some(d_weight + c, lanes) + dn * n, lanes);
        store_some(d_bias + c, load_some(d_bias + c, lanes) + dn, lanes);
        sum_e += e;
        sum_en += e * n;
    }
    const float mean_e = sum_lanes(sum_e) / D, mean_en = sum_lanes(sum_en) / D;
    for (int c = 0; c < D; c += LANES) {
        const int lanes = min_int(LANES, D - c);
        const vec n = (load_some(y + c, lanes) - m.mean) * m.scale, e = load_some(j->dy + row * D + c, lanes);
        store_some(j->dy + row * D + c, (e - mean_e - n * mean_en) * m.scale, lanes);
    }
}

EXPORT void vmrnn_gate_backward(struct gate_job *j) {
    const int D = j->D;
    for (int task; (task = take_task(&j->next, j->tasks)) >= 0;) {
        float *d_weight = j->d_weights + (size_t)task * 2 * D, *d_bias = d_weight + D;
        memset(d_weight, 0, (size_t)2 * D * sizeof(float));
        for (int64_t row = j->rows * task / j->tasks; row < j->rows * (task + 1) / j->tasks; row++)
            gate_backward_row(j, row, d_weight, d_bias);
    }
}

/* ---------------------------------------------------------------------------------------------------------------- */
/* A whole VSS block, and the gate behind the blocks of a cell, without a gradient                                    */

/* `GOMP_parallel` of the caller's OpenMP runtime. */
typedef void (*team_function)(void (*work)(void *), void *job, unsigned threads, unsigned flags);

#define CHUNK 48 /* tokens that go through several layers while they are in the cache */

struct block_job {
    int32_t next, tasks, failed;
    int32_t B, H, W, E, D, R, N;
    int32_t threads;
    float eps, gate_eps;
    team_function team;    /* NULL: this thread alone */
    const float *tokens;   /* (B, L, E) */
    const float *hidden;   /* (B, L, E), or NULL where the block takes none in */
    const float *norm_weight, *norm_bias; /* (E) */
    const float *mix;      /* packed (E, 2E) */
    const float *mix_bias; /* (E) */
    const float *in_proj;  /* packed (2D, E) */
    const float *conv_weight, *conv_bias; /* (D, 3, 3), (D) */
    const float *x_proj;   /* packed (K (R + 2N), D) */
    const float *dt_weight, *dt_bias, *A_logs, *Ds; /* as in struct scan_job */
    const float *gate_weight, *gate_bias; /* (D) */
    const float *out_proj; /* packed (E, D) */
    float *xz;             /* (B, L, 2D) */
    float *x;              /* (B, L, D) */
    float *x_dbl;          /* (B, L, K, R + 2N) */
    float *y;              /* (B, L, D) */
    float *out;            /* (B, L, E) */
};

/* LayerNorm, with a hidden state also that of it and the linear layer that mixes both, and the projection to 2D. */
static void block_project(void *job) {
    struct block_job *j = job;
    const int E = j->E, rows = j->B * j->H * j->W;
    float *normed = workspace((size_t)CHUNK * 3 * E, &j->failed), *mixed = normed + (size_t)CHUNK * 2 * E;
    if (!normed) return;
    for (int task; (task = take_task(&j->next, j->tasks)) >= 0;) {
        const int first = task * CHUNK, count = min_int(CHUNK, rows - first), width = j->hidden ? 2 * E : E;
        for (int i = 0; i < count; i++) {
            const size_t at = (size_t)(first + i) * E;
            float *row = normed + (size_t)i * width;
            norm_row(j->tokens + at, NULL, j->norm_weight, j->norm_bias, j->eps, E, row);
            if (j->hidden) norm_row(j->hidden + at, NULL, j->norm_weight, j->norm_bias, j->eps, E, row + E);
        }
        if (j->hidden) product(normed, width, count, j->mix, width, E, mixed, E, j->mix_bias, NULL);
        product(j->hidden ? mixed : normed, E, count, j->in_proj, E, 2 * j->D, j->xz + (size_t)first * 2 * j->D,
                (size_t)2 * j->D, NULL, NULL);
    }
    leave_workspace(normed);
}

static int block_bands(const struct block_job *j) { return min_int(j->H, (16 + j->B - 1) / j->B); }

/* The depthwise convolution, and what the scan takes of it. */
static void block_convolve(void *job) {
    struct block_job *j = job;
    const int D = j->D, S = K * (j->R + 2 * j->N), bands = block_bands(j);
    const struct conv_job conv = {.B = j->B, .H = j->H, .W = j->W, .D = D, .stride = 2 * D, .x = j->xz,
                                  .weight = j->conv_weight, .bias = j->conv_bias, .y = j->x};
    for (int task; (task = take_task(&j->next, j->tasks)) >= 0;) {
        const int b = task / bands, band = task % bands;
        const int first = j->H * band / bands, last = j->H * (band + 1) / bands;
        conv_forward_rows(&conv, b, first, last);
        const int end = (b * j->H + last) * j->W;
        for (int row = (b * j->H + first) * j->W; row < end; row += CHUNK)
            product(j->x + (size_t)row * D, D, min_int(CHUNK, end - row), j->x_proj, D, S, j->x_dbl + (size_t)row * S, S,
                    NULL, NULL);
    }
}

static void block_scan(void *job) {
    struct block_job *j = job;
    const int blocks = (j->D + LANES - 1) / LANES;
    const struct scan_job scan = {.B = j->B, .H = j->H, .W = j->W, .D = j->D, .R = j->R, .N = j->N, .x = j->x,
                                  .x_dbl = j->x_dbl, .dt_weight = j->dt_weight, .dt_bias = j->dt_bias,
                                  .A_logs = j->A_logs, .Ds = j->Ds, .y = j->y};
    vec *buffer = workspace((size_t)2 * j->H * j->W * LANES, &j->failed);
    if (!buffer) return;
    for (int task; (task = take_task(&j->next, j->tasks)) >= 0;)
        scan_forward_task(&scan, task / blocks, task % blocks, buffer);
    leave_workspace(buffer);
}

/* The gate, the projection back to E, and the residual connection. */
static void block_finish(void *job) {
    struct block_job *j = job;
    const int E = j->E, D = j->D, rows = j->B * j->H * j->W;
    float *gated = workspace((size_t)CHUNK * D, &j->failed);
    if (!gated) return;
    for (int task; (task = take_task(&j->next, j->tasks)) >= 0;) {
        const int first = task * CHUNK, count = min_int(CHUNK, rows - first);
        for (int i = 0; i < count; i++) {
            const size_t row = first + i;
            norm_row(j->y + row * D, j->xz + row * 2 * D + D, j->gate_weight, j->gate_bias, j->gate_eps, D,
                     gated + (size_t)i * D);
        }
        product(gated, D, count, j->out_proj, D, E, j->out + (size_t)first * E, E, NULL, j->tokens + (size_t)first * E);
    }
    leave_workspace(gated);
}

static void together(struct block_job *j, void (*work)(void *), int tasks) {
    j->next = 0;
    j->tasks = tasks;
    const int threads = min_int(j->threads, tasks);
    if (j->team && threads > 1) j->team(work, j, threads, 0);
    else work(j);
}

EXPORT int vmrnn_panel(void) { return PANEL; }

EXPORT void vmrnn_block_forward(struct block_job *j) {
    const int chunks = (j->B * j->H * j->W + CHUNK - 1) / CHUNK, blocks = (j->D + LANES - 1) / LANES;
    together(j, block_project, chunks);
    together(j, block_convolve, j->B * block_bands(j));
    together(j, block_scan, j->B * blocks);
    together(j, block_finish, chunks);
}

struct cell_job {
    int32_t next, tasks, failed;
    int64_t count;     /* of numbers in each */
    const float *o;    /* what the blocks gave */
    const float *cell; /* the state before */
    float *hidden;
    float *new_cell;
};

/* f = sigmoid(o), cell' = f (cell + tanh(o)), hidden = f tanh(cell') */
EXPORT void vmrnn_cell_forward(struct cell_job *j) {
    for (int task; (task = take_task(&j->next, j->tasks)) >= 0;)
        for (int64_t i = j->count * task / j->tasks; i < j->count * (task + 1) / j->tasks; i += LANES) {
            const int64_t left = j->count * (task + 1) / j->tasks - i;
            const int lanes = left < LANES ? (int)left : LANES;
            const vec o = load_some(j->o + i, lanes), before = load_some(j->cell + i, lanes), f = vsigmoid(o);
            const vec cell = f * (before + vtanh(o));
            const ivec lost = is_nan(o) | is_nan(before); /* bounds would make numbers of them */
            store_some(j->new_cell + i, (vec)((ivec)cell | lost), lanes);
            store_some(j->hidden + i, (vec)((ivec)(f * vtanh(cell)) | lost), lanes);
        }
}

/* ---------------------------------------------------------------------------------------------------------------- */

#if defined(__x86_64__)
/* By hand, as the compilers' own way wants a runtime of theirs beside the object. */
static int x86_instruction_set(void) {
    unsigned a, b, c, d, state, high;
    if (!__get_cpuid(1, &a, &b, &c, &d)) return 0;
    if (!(c & bit_OSXSAVE) || !(c & bit_FMA)) return 0;
    __asm__("xgetbv" : "=a"(state), "=d"(high) : "c"(0)); /* which registers the operating system keeps */
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(b & bit_AVX2) || (state & 0x06) != 0x06) return 0;
    const unsigned wide = bit_AVX512F | bit_AVX512DQ | bit_AVX512BW | bit_AVX512VL;
    return (b & wide) == wide && (state & 0xe6) == 0xe6 ? 2 : 1;
}
#endif

/* 1 if this processor runs AVX2 with FMA, 2 if also AVX-512 as the widest object uses it, else 0. */
EXPORT int vmrnn_instruction_set(void) {
#if defined(__x86_64__)
    return x86_instruction_set();
#else
    return 0;
#endif
}

#if defined(VMRNN_NO_RUNTIME) /* a DLL without a C runtime: there is nothing to begin with */
int __stdcall DllMainCRTStartup(void *module, unsigned reason, void *reserved) {
    (void)module, (void)reason, (void)reserved;
    return 1;
}
#endif
