//! Whether all ranks are about to do the same work.

use rlt_ranks::Ranks;
use serde_json::{Map, Value};

use crate::error::{Error, Result};

/// What rank 0 has of something that may differ between ranks: a date, a decision.
///
/// # Errors
/// Naming a rank that is gone.
pub fn first_ranks<T: serde::Serialize + serde::de::DeserializeOwned>(ranks: &Ranks, mine: T) -> Result<T> {
    if ranks.size() == 1 {
        return Ok(mine);
    }
    let garbled = |error: serde_json::Error| Error::Failed(format!("rank 0's word cannot be read: {error}"));
    let text = serde_json::to_vec(&mine).map_err(garbled)?;
    serde_json::from_slice(&ranks.broadcast(0, text)?).map_err(garbled)
}

/// Refuses ranks with other files or settings than rank 0's. `work` is a JSON object of everything that decides the result.
///
/// # Errors
/// Naming the first rank that differs, and in what.
pub fn agree_on_work(ranks: &Ranks, work: &str) -> Result<()> {
    if ranks.size() == 1 {
        return Ok(());
    }
    let firsts = ranks.broadcast(0, work.as_bytes().to_vec())?;
    let difference = (firsts != work.as_bytes()).then(|| difference(&firsts, work));
    match ranks.first_error(difference)? {
        None => Ok(()),
        Some((rank, what)) => Err(Error::Usage(format!(
            "rank {rank} on {} has other {what} than rank 0: all ranks need the same files, settings and program",
            ranks.host(rank)
        ))),
    }
}

/// The keys that differ: "models and rows".
fn difference(firsts: &[u8], own: &str) -> String {
    let read = |bytes: &[u8]| serde_json::from_slice::<Map<String, Value>>(bytes).unwrap_or_default();
    let (firsts, own) = (read(firsts), read(own.as_bytes()));
    let mut keys: Vec<&str> = own
        .keys()
        .chain(firsts.keys())
        .filter(|&key| own.get(key) != firsts.get(key))
        .map(String::as_str)
        .collect();
    keys.dedup();
    keys.sort_unstable();
    keys.dedup();
    keys.join(" and ").replace('_', " ")
}

#[cfg(test)]
mod tests {
    use rlt_ranks::on_threads;

    use super::*;

    #[test]
    fn a_rank_with_other_files_is_named() {
        let work = |models: u32| format!(r#"{{"models":{models},"rows":3,"template_time":1}}"#);
        let errors =
            on_threads(3, |ranks| agree_on_work(&ranks, &work(u32::from(ranks.rank() == 1))).unwrap_err());
        for error in errors {
            let text = error.to_string();
            assert!(
                text.starts_with("rank 1 on ") && text.contains(" has other models than rank 0"),
                "{text}"
            );
        }
        on_threads(3, |ranks| agree_on_work(&ranks, &work(7)).unwrap());
        assert_eq!(on_threads(3, |ranks| first_ranks(&ranks, ranks.rank()).unwrap()), [0, 0, 0]);
    }
}
