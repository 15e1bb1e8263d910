//! Bounds on what a template from anywhere may cost: its own size, its work, its memory, its depth.
//!
//! minijinja counts work and memory (fuel) and the depth of calls. What it does not bound is how deep an
//! expression nests (its compiler recurses) and how deep values nest (dropping and writing them recurses), so
//! both are bounded here, and templates are parsed and rendered on a stack of known size.

use std::cell::OnceCell;
use std::panic::resume_unwind;
use std::sync::mpsc;

use minijinja::tests::is_sameas;
use minijinja::value::{Rest, ValueKind};
use minijinja::{Error, ErrorKind, State, Value};

use crate::guarded::guarded;

/// Longest template, bytes. The longest of published models have 30 kB.
pub(super) const MAX_TEMPLATE_BYTES: usize = 256 << 10;

/// Most tokens between one pair of delimiters: they bound how deep an expression nests.
pub(super) const MAX_TAG_TOKENS: usize = 4_000;

/// Most `elif` in a template: they nest like blocks.
pub(super) const MAX_ELIFS: usize = 4_000;

/// Fuel for one rendering: about one an instruction, or 64 bytes of data. That is 256 MiB, or about a second.
pub(super) const FUEL: u64 = 4 << 20;

/// Bytes that one fuel pays for in minijinja.
pub(super) const BYTES_PER_FUEL: usize = 64;

/// Deepest nesting of a value that a template may keep or write out.
pub(super) const MAX_DEPTH: usize = 100;

/// Widest column that a text is brought to, characters, and widest indentation.
pub(super) const MAX_WIDTH: usize = 10_000;

/// Stack for parsing and rendering, bytes. Only what is touched takes memory.
const STACK_BYTES: usize = 64 << 20;

/// What a rendering that used up its fuel is told.
pub(super) const OUT_OF_FUEL: &str = "the template does too much work or makes too much text for one conversation \
                                      (its bound is about 4 million steps, or 256 MiB)";

/// Runs `work` on a stack of [`STACK_BYTES`].
///
/// # Errors
/// The system has no memory for the stack.
pub(super) fn on_known_stack<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T, String> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("chat template".into()).stack_size(STACK_BYTES);
        let thread = thread.spawn_scoped(scope, || guarded(work));
        let thread = thread.map_err(|e| format!("no memory to read it with: {e}"))?;
        thread.join().unwrap_or_else(|panic| resume_unwind(panic))
    })
}

/// Something to do on a stack of [`STACK_BYTES`].
type Task = Box<dyn FnOnce() + Send>;

thread_local! {
    /// The thread with such a stack that works for this one. It ends with it.
    static PARTNER: OnceCell<mpsc::Sender<Task>> = const { OnceCell::new() };
}

/// As [`on_known_stack`], on a stack that the calling thread keeps: to make one takes longer than to render a prompt.
///
/// # Errors
/// The system has no memory for the stack.
pub(super) fn on_kept_stack<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, String> {
    PARTNER.with(|partner| {
        let partner = if let Some(partner) = partner.get() {
            partner
        } else {
            let (give, tasks) = mpsc::channel::<Task>();
            let thread = std::thread::Builder::new().name("chat template".into()).stack_size(STACK_BYTES);
            let spawned = thread.spawn(move || tasks.into_iter().for_each(|task| task()));
            spawned.map_err(|e| format!("no memory to read it with: {e}"))?;
            partner.get_or_init(|| give)
        };
        let (tell, told) = mpsc::sync_channel(1);
        let gone = |_: String| "the thread that reads it has ended".to_owned();
        // Whoever asked waits for it.
        let task = move || drop(tell.send(guarded(work)));
        partner.send(Box::new(task)).map_err(|e| gone(e.to_string()))?;
        told.recv().map_err(|e| gone(e.to_string()))?
    })
}

/// Charges for `items` of `bytes` each before they are made.
pub(super) fn charge(state: &State, items: usize, bytes: usize) -> Result<(), Error> {
    state.consume_fuel((items.saturating_mul(bytes) / BYTES_PER_FUEL) as u64)
}

/// Bytes that the fuel left can pay for.
pub(super) fn bytes_left(state: &State) -> usize {
    state.fuel_levels().map_or(usize::MAX, |(_, left)| (left as usize).saturating_mul(BYTES_PER_FUEL))
}

/// Refuses a width that no prompt has.
pub(super) fn check_width(what: &str, width: usize) -> Result<(), Error> {
    if width <= MAX_WIDTH {
        return Ok(());
    }
    Err(invalid(format!("{what}: a width of {width} is beyond {MAX_WIDTH}")))
}

pub(super) fn invalid(what: String) -> Error {
    Error::new(ErrorKind::InvalidOperation, what)
}

/// Refuses a value that nests deeper than [`MAX_DEPTH`], or that holds `holder`. Charges for its items.
pub(super) fn check_nesting(state: &State, value: &Value, holder: Option<&Value>) -> Result<(), Error> {
    Nesting { state, holder, visited: 0 }.check(value, 0)
}

/// A walk through a value.
struct Nesting<'a> {
    state: &'a State<'a, 'a>,
    holder: Option<&'a Value>,
    visited: usize,
}

/// Items of a value that one fuel pays for looking at.
const ITEMS_PER_FUEL: usize = 2;

impl Nesting<'_> {
    fn check(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        if self.visited.is_multiple_of(ITEMS_PER_FUEL) {
            self.state.consume_fuel(1)?;
        }
        self.visited += 1;
        if !matches!(value.kind(), ValueKind::Seq | ValueKind::Map | ValueKind::Iterable) {
            return Ok(());
        }
        if self.holder.is_some_and(|holder| is_sameas(value, holder)) {
            return Err(invalid("a namespace cannot hold itself".into()));
        }
        if depth == MAX_DEPTH {
            return Err(invalid(format!("a value nests deeper than {MAX_DEPTH} levels")));
        }
        let is_map = value.kind() == ValueKind::Map;
        // What a loop tells of itself changes as it runs on, so nothing could be checked for good.
        let like_a_loop = is_map && value.get_attr("revindex0").is_ok_and(|v| !v.is_undefined());
        if like_a_loop && value.to_string().starts_with("<loop ") {
            return Err(invalid("`loop` cannot be kept in a variable".into()));
        }
        for item in value.try_iter()? {
            let item = if is_map { value.get_item(&item)? } else { item };
            self.check(&item, depth + 1)?;
        }
        Ok(())
    }
}

/// What `{% set .. = VALUE %}` keeps: the value, once it is known to be bounded. `holders` are the namespaces
/// that are assigned to.
#[expect(clippy::needless_pass_by_value, reason = "the signature that minijinja calls")]
pub(super) fn kept_value(state: &State, value: &Value, holders: Rest<Value>) -> Result<Value, Error> {
    check_nesting(state, value, None)?;
    holders.iter().try_for_each(|holder| check_nesting(state, value, Some(holder)))?;
    Ok(value.clone())
}
