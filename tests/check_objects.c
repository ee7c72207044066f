/* Runs the kernels on numbers from a file and compares what they give with the reference's, on machines without Python.
 *
 *     check NUMBERS [LIBRARY]
 *
 * NUMBERS is what test_objects.py writes. LIBRARY is a DLL to load; without one, the kernels are compiled into the
 * program. Prints a line for each result, and leaves with 1 if one is further off than 1e-5 of its norm.
 */
#include <math.h>
#include <stdio.h>

#include "kernels.c"
#if defined(_WIN32)
#include <windows.h>
#endif

typedef void (*kernel)(void *);
static FILE *file;
static int wrong;

static int number(void) {
    int32_t n;
    if (fread(&n, 4, 1, file) != 1) exit(2);
    return n;
}

/* An array from the file, its length before it. */
static float *numbers(void) {
    const int n = number();
    float *a = malloc((size_t)n * 4 + 4);
    if ((int)fread(a, 4, n, file) != n) exit(2);
    return a;
}

static float *space(size_t n) { return calloc(n, 4); }

/* Compare with the next array in the file; what was computed in `parts` is added up first. */
static void check(const char *name, const float *got, int parts) {
    const int n = number();
    double off = 0, norm = 1e-30;
    for (int i = 0; i < n; i++) {
        float want;
        double sum = 0;
        if (fread(&want, 4, 1, file) != 1) exit(2);
        for (int p = 0; p < parts; p++) sum += got[(size_t)p * n + i];
        off += (sum - want) * (sum - want);
        norm += (double)want * want;
    }
    const double distance = sqrt(off / norm);
    const int good = distance < 1e-5; /* also of NaN */
    printf("%-16s %.1e%s\n", name, distance, good ? "" : " WRONG");
    wrong |= !good;
}

static float *packed(const float *weight, int outputs, int inputs, int panel) {
    const int panels = (outputs + panel - 1) / panel;
    float *p = space((size_t)panels * panel * inputs);
    for (int o = 0; o < outputs; o++)
        for (int i = 0; i < inputs; i++)
            p[((size_t)(o / panel) * inputs + i) * panel + o % panel] = weight[(size_t)o * inputs + i];
    return p;
}

int main(int count, char **arguments) {
    file = count > 1 ? fopen(arguments[1], "rb") : NULL;
    if (!file) return 2;
#if defined(_WIN32)
    HMODULE library = LoadLibraryA(arguments[2]);
    if (!library) return printf("cannot load %s: %lu\n", arguments[2], GetLastError()), 2;
#define KERNEL(name) ((void *)GetProcAddress(library, "vmrnn_" #name))
#else
#define KERNEL(name) ((void *)vmrnn_##name)
#endif
    const int lanes = ((int (*)(void))KERNEL(lanes))(), tile = ((int (*)(void))KERNEL(tile))();
    const int panel = ((int (*)(void))KERNEL(panel))();
    printf("lanes %d, tile %d, instruction set %d\n", lanes, tile, ((int (*)(void))KERNEL(instruction_set))());
    const int B = number(), H = number(), W = number(), E = number(), D = number(), R = number(), N = number();
    const int L = H * W, S = R + 2 * N, blocks = (D + lanes - 1) / lanes, tiles = (L + tile - 1) / tile;
    const int parameters = R + 1 + N + 1;

    struct scan_job scan = {.tasks = B * blocks, .B = B, .H = H, .W = W, .D = D, .R = R, .N = N, .keep = 1};
    scan.x = numbers(), scan.x_dbl = numbers(), scan.dt_weight = numbers(), scan.dt_bias = numbers();
    scan.A_logs = numbers(), scan.Ds = numbers(), scan.dy = numbers();
    scan.y = space((size_t)B * L * D);
    float *states = space((size_t)B * blocks * K * tiles * N * lanes + 16);
    scan.states = (float *)(((uintptr_t)states + 63) & ~(uintptr_t)63);
    ((kernel)KERNEL(scan_forward))(&scan);
    check("y", scan.y, 1);
    scan.next = 0, scan.tasks = B, scan.groups = 1;
    scan.dx = space((size_t)B * L * D), scan.dx_dbl = space((size_t)B * L * K * S);
    scan.d_weights = space((size_t)B * D * K * parameters);
    ((kernel)KERNEL(scan_backward))(&scan);
    check("dx", scan.dx, 1);
    check("dx_dbl", scan.dx_dbl, 1);
    check("d_weights", scan.d_weights, B);

    struct conv_job conv = {.tasks = B, .B = B, .H = H, .W = W, .D = D, .bands = 1, .stride = D, .x = scan.x};
    conv.weight = numbers(), conv.bias = numbers(), conv.dy = scan.dy, conv.y = space((size_t)B * L * D);
    ((kernel)KERNEL(conv_forward))(&conv);
    check("convolution", conv.y, 1);
    conv.next = 0, conv.tasks = B * blocks, conv.dx = space((size_t)B * L * D);
    conv.d_weights = space((size_t)B * D * 10);
    ((kernel)KERNEL(conv_backward))(&conv);
    check("its dx", conv.dx, 1);
    check("its d_weights", conv.d_weights, B);

    struct gate_job gate = {.tasks = 1, .D = D, .rows = B * L, .stride = D, .eps = 1e-5f, .y = scan.x, .z = scan.dy};
    gate.weight = numbers(), gate.bias = numbers(), gate.out = space((size_t)B * L * D), gate.dout = numbers();
    ((kernel)KERNEL(gate_forward))(&gate);
    check("gate", gate.out, 1);
    gate.next = 0, gate.dy = space((size_t)B * L * D), gate.dz = space((size_t)B * L * D);
    gate.d_weights = space((size_t)2 * D);
    ((kernel)KERNEL(gate_backward))(&gate);
    check("its dy", gate.dy, 1);
    check("its dz", gate.dz, 1);
    check("its d_weights", gate.d_weights, 1);

    struct block_job block = {.B = B, .H = H, .W = W, .E = E, .D = D, .R = R, .N = N, .threads = 1};
    block.eps = block.gate_eps = 1e-5f;
    block.tokens = numbers(), block.hidden = numbers(), block.norm_weight = numbers(), block.norm_bias = numbers();
    block.mix = packed(numbers(), E, 2 * E, panel), block.mix_bias = numbers();
    block.in_proj = packed(numbers(), 2 * D, E, panel);
    block.conv_weight = conv.weight, block.conv_bias = conv.bias;
    block.x_proj = packed(numbers(), K * S, D, panel);
    block.dt_weight = scan.dt_weight, block.dt_bias = scan.dt_bias, block.A_logs = scan.A_logs, block.Ds = scan.Ds;
    block.gate_weight = gate.weight, block.gate_bias = gate.bias;
    block.out_proj = packed(numbers(), E, D, panel);
    block.xz = space((size_t)B * L * 2 * D), block.x = space((size_t)B * L * D), block.y = space((size_t)B * L * D);
    block.x_dbl = space((size_t)B * L * K * S), block.out = space((size_t)B * L * E);
    ((kernel)KERNEL(block_forward))(&block);
    check("block", block.out, 1);

    struct cell_job cell = {.tasks = 2, .count = (int64_t)B * L * E, .o = block.tokens, .cell = block.hidden};
    cell.hidden = space(cell.count), cell.new_cell = space(cell.count);
    ((kernel)KERNEL(cell_forward))(&cell);
    check("hidden", cell.hidden, 1);
    check("cell", cell.new_cell, 1);
    return wrong;
}
