// Fibres, barriers, and the order in which threads run.
#include "execution.h"

#include <csetjmp>
#include <cstdio>
#include <cstdlib>
#include <ucontext.h>
#include <vector>

// Bounds of the section that holds all shared memory, from the linker.
extern char __start_shared_memory[] __attribute__((visibility("hidden")));
extern char __stop_shared_memory[] __attribute__((visibility("hidden")));

namespace emulation {

Index thread_index, block_index, grid_size;
Counts counts;

namespace {

enum class State { READY, AT_BARRIER, DONE };

// Made once and used for every launch: system calls are needed to make one, none to switch.
struct Fibre {
    jmp_buf context;
    ucontext_t start;
    std::vector<char> stack = std::vector<char>(64 << 10);
    bool started = false;
    State state = State::DONE;
    unsigned thread = 0;
};

std::vector<Fibre*> fibres;
Fibre* current;
jmp_buf scheduler;
Body body;

void leave(State state) {
    current->state = state;
    if (_setjmp(current->context) == 0) _longjmp(scheduler, 1);
}

void fibre_main() {
    for (;;) {
        body.run(body.arguments);
        leave(State::DONE);
    }
}

void resume(Fibre* fibre) {
    current = fibre;
    thread_index = {fibre->thread, 0, 0};
    if (_setjmp(scheduler) != 0) return;
    if (fibre->started) _longjmp(fibre->context, 1);
    fibre->started = true;
    setcontext(&fibre->start);
}

Fibre* new_fibre() {
    Fibre* fibre = new Fibre;
    getcontext(&fibre->start);
    fibre->start.uc_stack.ss_sp = fibre->stack.data();
    fibre->start.uc_stack.ss_size = fibre->stack.size();
    fibre->start.uc_link = nullptr;
    makecontext(&fibre->start, fibre_main, 0);
    return fibre;
}

uint64_t seed() {
    const char* text = getenv("CUDA_EMULATION_SEED");
    return (text ? strtoull(text, nullptr, 10) : 0) * 2 + 1;
}

// xorshift64*
uint64_t random() {
    static uint64_t x = seed() * 0x9e3779b97f4a7c15;
    x ^= x >> 12;
    x ^= x << 25;
    x ^= x >> 27;
    return x * 0x2545f4914f6cdd1d;
}

void shuffle(std::vector<unsigned>& order) {
    for (size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[random() % i]);
}

std::vector<unsigned> numbers(unsigned count) {
    std::vector<unsigned> out(count);
    for (unsigned i = 0; i < count; ++i) out[i] = i;
    return out;
}

// Whether threads wait at a barrier after all that could run have run.
bool all_at_barrier(unsigned threads) {
    unsigned waiting = 0;
    for (unsigned i = 0; i < threads; ++i) waiting += fibres[i]->state == State::AT_BARRIER;
    if (waiting == 0) return false;
    if (waiting == threads) return true;
    fprintf(stderr, "CUDA emulation: divergent barrier in thread block %u: %u of %u threads came to it, the others ended\n",
            block_index.x, waiting, threads);
    abort();
}

void run_thread_block(std::vector<unsigned>& order) {
    memset(__start_shared_memory, 0xff, __stop_shared_memory - __start_shared_memory);
    for (unsigned i = 0; i < order.size(); ++i) fibres[i]->thread = i;
    do {
        shuffle(order);
        for (unsigned i : order) resume(fibres[i]);
        ++counts.barriers;
    } while (all_at_barrier(order.size()));
    --counts.barriers;
}

} // namespace

void barrier() { leave(State::AT_BARRIER); }

void launch(Body what, unsigned thread_blocks, unsigned threads) {
    while (fibres.size() < threads) fibres.push_back(new_fibre());
    body = what;
    grid_size = {thread_blocks, 1, 1};
    std::vector<unsigned> blocks = numbers(thread_blocks), order = numbers(threads);
    shuffle(blocks);
    for (unsigned b : blocks) {
        block_index = {b, 0, 0};
        run_thread_block(order);
    }
    ++counts.launches;
    counts.thread_blocks += thread_blocks;
}

} // namespace emulation
