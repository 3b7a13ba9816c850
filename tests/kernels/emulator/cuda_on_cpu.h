// Enough of CUDA C++ to run a kernel on a CPU, thread by thread: each thread of a block is a fiber, barriers and
// shuffles switch between fibers. Slow, exact, and free of a GPU. EMULATED_ORDER=1 runs threads in reverse order
// between barriers, which shows a missing one.
#pragma once
#define EMULATED 1
#include <ucontext.h>
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <tuple>
#include <utility>
#include <vector>

#define __global__ inline  // so that only the kernel in use is compiled
#define __device__
#define __host__
#define __forceinline__ inline
#define __noinline__
#define __restrict__
#define __shared__ static
#define __launch_bounds__(...)
#define __align__(n) alignas(n)
#define __constant__ static

struct dim3 { unsigned x, y, z; };
struct uint3 { unsigned x, y, z; };
struct alignas(8) float2 { float x, y; };
struct alignas(16) float4 { float x, y, z, w; };
struct alignas(8) int2 { int x, y; };
struct alignas(16) int4 { int x, y, z, w; };
struct alignas(8) uint2 { unsigned x, y; };
struct alignas(16) uint4 { unsigned x, y, z, w; };
struct alignas(16) double2 { double x, y; };
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline int2 make_int2(int x, int y) { return {x, y}; }
inline int4 make_int4(int x, int y, int z, int w) { return {x, y, z, w}; }
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }
inline double2 make_double2(double x, double y) { return {x, y}; }
using std::max;
using std::min;

namespace emulated {

enum State { READY, AT_BLOCK, AT_WARP, DONE };
struct Fiber { ucontext_t context; State state; unsigned number; };

inline std::vector<Fiber> fibers;
inline ucontext_t scheduler;
inline Fiber* running;
inline void (*body)();
inline std::vector<char> stacks;
inline std::vector<unsigned char> dynamic;
inline uint64_t exchanged[64][32];
constexpr size_t STACK = 128 * 1024;

inline void wait(State what) {
    running->state = what;
    swapcontext(&running->context, &scheduler);
}

inline void entry() {
    body();
    running->state = DONE;
}

}  // namespace emulated

inline uint3 threadIdx, blockIdx;
inline dim3 blockDim, gridDim;
constexpr int warpSize = 32;

#define SHARED(type, name) type* const name = reinterpret_cast<type*>((reinterpret_cast<uintptr_t>(emulated::dynamic.data()) + 15) / 16 * 16)

inline void __syncthreads() { emulated::wait(emulated::AT_BLOCK); }
inline void __syncwarp(unsigned = 0xffffffffu) { emulated::wait(emulated::AT_WARP); }
inline void __threadfence() {}
inline void __threadfence_block() {}

template <typename T> inline T shuffle(T value, unsigned from) {
    static_assert(sizeof(T) <= 8);
    const unsigned warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    std::memcpy(&emulated::exchanged[warp][lane], &value, sizeof(T));
    __syncwarp();
    T got;
    std::memcpy(&got, &emulated::exchanged[warp][from % 32], sizeof(T));
    __syncwarp();
    return got;
}
template <typename T> inline T __shfl_sync(unsigned, T v, int lane, int width = 32) {
    const int me = threadIdx.x % 32;
    return shuffle(v, me / width * width + lane % width);
}
template <typename T> inline T __shfl_xor_sync(unsigned, T v, int mask, int = 32) { return shuffle(v, (threadIdx.x % 32) ^ mask); }
template <typename T> inline T __shfl_up_sync(unsigned, T v, int d, int width = 32) {
    const int me = threadIdx.x % 32;
    return shuffle(v, me % width >= d ? me - d : me);
}
template <typename T> inline T __shfl_down_sync(unsigned, T v, int d, int width = 32) {
    const int me = threadIdx.x % 32;
    return shuffle(v, me % width + d < width ? me + d : me);
}
inline unsigned __ballot_sync(unsigned, int predicate) {
    const unsigned warp = threadIdx.x / 32;
    emulated::exchanged[warp][threadIdx.x % 32] = predicate != 0;
    __syncwarp();
    unsigned bits = 0;
    for (int lane = 0; lane < 32; lane++)
        if (warp * 32 + lane < blockDim.x && emulated::exchanged[warp][lane]) bits |= 1u << lane;
    __syncwarp();
    return bits;
}
inline int __any_sync(unsigned m, int p) { return __ballot_sync(m, p) != 0; }

template <typename T, typename U> inline T atomicAdd(T* at, U v) { T old = *at; *at = T(old + v); return old; }
template <typename T, typename U> inline T atomicOr(T* at, U v) { T old = *at; *at = T(old | v); return old; }
template <typename T> inline T atomicMax(T* at, T v) { T old = *at; *at = std::max(old, v); return old; }
template <typename T> inline T __ldg(const T* p) { return *p; }
template <typename T> inline T __ldcs(const T* p) { return *p; }
template <typename T> inline void __stcs(T* p, T v) { *p = v; }
inline float __expf(float x) { return std::exp(x); }
inline float __logf(float x) { return std::log(x); }
inline float __fdividef(float a, float b) { return a / b; }
inline float __frcp_rn(float a) { return 1.0f / a; }
inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }
inline double rsqrt(double x) { return 1.0 / std::sqrt(x); }
inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __saturatef(float x) { return std::min(std::max(x, 0.0f), 1.0f); }
template <typename To, typename From> inline To reinterpret_bits(From v) { To t; std::memcpy(&t, &v, sizeof t); return t; }
inline unsigned __float_as_uint(float v) { return reinterpret_bits<unsigned>(v); }
inline int __float_as_int(float v) { return reinterpret_bits<int>(v); }
inline float __uint_as_float(unsigned v) { return reinterpret_bits<float>(v); }
inline float __int_as_float(int v) { return reinterpret_bits<float>(v); }
inline int __float2int_rn(float v) { return int(std::nearbyint(v)); }
inline int __float2int_rd(float v) { return int(std::floor(v)); }
inline long long __float2ll_rn(float v) { return (long long)std::nearbyint(double(v)); }
inline long long __double2ll_rn(double v) { return (long long)std::nearbyint(v); }
inline int __popc(unsigned v) { return __builtin_popcount(v); }
inline int __clz(int v) { return v ? __builtin_clz(unsigned(v)) : 32; }

namespace emulated {

inline void release(State what, size_t begin, size_t end) {
    for (size_t i = begin; i < end; i++) if (fibers[i].state == what) fibers[i].state = READY;
}
inline bool all(State what, size_t begin, size_t end) {  // of those that still run, and there is one
    bool any = false;
    for (size_t i = begin; i < end; i++) {
        if (fibers[i].state == what) any = true;
        else if (fibers[i].state != DONE) return false;
    }
    return any;
}

inline void block(unsigned threads) {
    static const bool reverse = std::getenv("EMULATED_ORDER") != nullptr;
    fibers.resize(threads);
    stacks.resize(std::max(stacks.size(), STACK * threads));
    for (unsigned i = 0; i < threads; i++) {
        Fiber& f = fibers[i];
        getcontext(&f.context);
        f.context.uc_stack.ss_sp = stacks.data() + STACK * i;
        f.context.uc_stack.ss_size = STACK;
        f.context.uc_link = &scheduler;
        f.state = READY;
        f.number = i;
        makecontext(&f.context, entry, 0);
    }
    for (;;) {
        bool progress = false, alive = false;
        for (unsigned n = 0; n < threads; n++) {
            Fiber& f = fibers[reverse ? threads - 1 - n : n];
            if (f.state == READY) {
                running = &f;
                threadIdx = {f.number, 0, 0};
                swapcontext(&scheduler, &f.context);
                progress = true;
            }
            alive |= f.state != DONE;
        }
        if (!alive) return;
        for (size_t w = 0; w < threads; w += 32) {
            const size_t end = std::min<size_t>(w + 32, threads);
            if (all(AT_WARP, w, end)) { release(AT_WARP, w, end); progress = true; }
        }
        if (all(AT_BLOCK, 0, threads)) { release(AT_BLOCK, 0, threads); progress = true; }
        if (!progress) { std::fprintf(stderr, "deadlock: threads wait at different barriers\n"); std::abort(); }
    }
}

template <typename... A, size_t... I>
void call(void (*kernel)(A...), void** arguments, std::index_sequence<I...>) {
    kernel(*static_cast<A*>(arguments[I])...);
}

template <typename... A>
void launch(void (*kernel)(A...), const int* grid, int threads, int shared, void** arguments, int count) {
    if (count != int(sizeof...(A))) { std::fprintf(stderr, "%d arguments given, %d wanted\n", count, int(sizeof...(A))); std::abort(); }
    static void (*k)(A...);
    static void** a;
    k = kernel;
    a = arguments;
    body = [] { call(k, a, std::index_sequence_for<A...>{}); };
    dynamic.assign(shared + 16, 0xcb);  // garbage, as on a GPU
    gridDim = {unsigned(grid[0]), unsigned(grid[1]), unsigned(grid[2])};
    blockDim = {unsigned(threads), 1, 1};
    for (blockIdx.z = 0; blockIdx.z < gridDim.z; blockIdx.z++)
        for (blockIdx.y = 0; blockIdx.y < gridDim.y; blockIdx.y++)
            for (blockIdx.x = 0; blockIdx.x < gridDim.x; blockIdx.x++) block(threads);
}

}  // namespace emulated
