#include "streams.h"
#include <cstdlib>
#include <cstring>
#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

namespace emu {
// A place in a stream's work.
struct Mark { Stream* stream; bool is_reached = false; };
// Some work, or a wait for a mark, or a mark.
struct Item { std::function<void()> work; std::shared_ptr<Mark> awaited, reached; };
struct Stream { unsigned number; bool is_late; std::deque<Item> items; };
struct Event { std::shared_ptr<Mark> mark; };

static std::recursive_mutex in_use;
static std::vector<Stream*> streams;

// Does the first item, unless it waits.
static bool goes_on(Stream& s) {
    if (s.items.empty() || (s.items.front().awaited && !s.items.front().awaited->is_reached)) return false;
    Item item = std::move(s.items.front());
    s.items.pop_front();
    if (item.work) item.work();
    if (item.reached) item.reached->is_reached = true;
    return true;
}
static void reach(const Mark& mark) {
    while (!mark.is_reached) {
        Stream& s = *mark.stream;
        const auto awaited = s.items.front().awaited;
        if (awaited) reach(*awaited);
        goes_on(s);
    }
}
static void add(Stream* s, Item item) {
    s->items.push_back(std::move(item));
    for (bool any = true; any;) {
        any = false;
        for (Stream* one : streams) while (!one->is_late && goes_on(*one)) any = true;
    }
}

typedef std::lock_guard<std::recursive_mutex> Lock;

Stream* new_stream() {
    Lock lock(in_use);
    static const char* late = std::getenv("EMU_LATE");
    const unsigned number = streams.size();
    streams.push_back(new Stream{number, late && std::strchr(late, '0' + number), {}});
    return streams.back();
}
Event* new_event() { return new Event; }
void forget(Event* event) { delete event; }
void ask(Stream* stream, std::function<void()> work) { Lock lock(in_use); add(stream, {std::move(work), nullptr, nullptr}); }
void record(Event* event, Stream* stream) {
    Lock lock(in_use);
    event->mark = std::make_shared<Mark>(Mark{stream});
    add(stream, {nullptr, nullptr, event->mark});
}
void let_wait(Stream* stream, Event* event) {
    Lock lock(in_use);
    static const char* without = std::getenv("EMU_WITHOUT_WAIT");
    if (!event->mark) return;
    if (without && std::to_string(stream->number) + "<" + std::to_string(event->mark->stream->number) == without) return;
    add(stream, {nullptr, event->mark, nullptr});
}
void finish(Stream* s) {
    Lock lock(in_use);
    while (!s->items.empty()) {
        const auto awaited = s->items.front().awaited;
        if (awaited) reach(*awaited);
        goes_on(*s);
    }
}
void finish_all() { Lock lock(in_use); for (Stream* s : streams) finish(s); }
} // namespace emu
