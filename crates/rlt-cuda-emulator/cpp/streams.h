// Streams of the emulated device: what is asked of one is done in its order, and what several are asked for in an order that
// only events decide. A stream does its work at once, or, named by EMU_LATE, no sooner than somebody waits for it.
#pragma once
#include <cstddef>
#include <functional>

namespace emu {
struct Stream;
struct Event;

Stream* new_stream();
Event* new_event();
void forget(Event* event);
void ask(Stream* stream, std::function<void()> work);
// The event stands for what the stream was asked for so far.
void record(Event* event, Stream* stream);
void let_wait(Stream* stream, Event* event);
// Returns when the stream has done all that it was asked for.
void finish(Stream* stream);
void finish_all();
} // namespace emu
