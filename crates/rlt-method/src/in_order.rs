//! Several pieces of work at a time whose results come in order: for work that waits for others, not for work that computes.

use std::collections::VecDeque;
use std::panic::resume_unwind;
use std::thread;

use crate::error::Result;

/// Does `work` on every item that `items` gives, `at_once` of them at a time on threads of their own (on this one, where that
/// is one), and hands what each came to to `take`, in the order of the items. Items are asked for as they are needed.
///
/// # Errors
/// The first that `items` or `take` reports; work that is under way then is waited for.
pub(crate) fn in_order<I: Send, T: Send>(
    at_once: usize,
    items: impl IntoIterator<Item = Result<I>>,
    work: impl Fn(I) -> T + Sync,
    mut take: impl FnMut(T) -> Result<()>,
) -> Result<()> {
    let mut items = items.into_iter();
    if at_once <= 1 {
        return items.try_for_each(|item| take(work(item?)));
    }
    let work = &work;
    thread::scope(|scope| {
        let mut under_way = VecDeque::new();
        loop {
            while under_way.len() < at_once
                && let Some(item) = items.next()
            {
                let item = item?;
                under_way.push_back(scope.spawn(move || work(item)));
            }
            let Some(first) = under_way.pop_front() else { return Ok(()) };
            take(first.join().unwrap_or_else(|panic| resume_unwind(panic)))?;
        }
    })
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use super::*;
    use crate::error::Error;

    #[test]
    fn results_come_in_order_and_only_so_many_are_under_way() {
        for at_once in [1, 3] {
            let (running, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
            let work = |i: usize| {
                most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                // Later ones are done first.
                thread::sleep(Duration::from_millis(12 - 4 * (i as u64 % 3)));
                running.fetch_sub(1, Ordering::SeqCst);
                i
            };
            let mut taken = Vec::new();
            let outcome = in_order(at_once, (0..12).map(Ok), work, |i| {
                taken.push(i);
                if taken.len() < 10 { Ok(()) } else { Err(Error::Failed("enough".into())) }
            });
            assert!(matches!(outcome, Err(Error::Failed(_))));
            assert_eq!(taken, (0..10).collect::<Vec<_>>());
            assert_eq!(most.load(Ordering::SeqCst), at_once);
        }
        let items = [Ok(1), Err(Error::Failed("no row".into())), Ok(2)];
        let mut sum = 0;
        let outcome = in_order(
            1,
            items,
            |i| i,
            |i| {
                sum += i;
                Ok(())
            },
        );
        assert!(outcome.is_err() && sum == 1);
    }
}
