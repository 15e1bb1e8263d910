//! Where the weights of models are: whole on every rank, or a share on each (`memory.weights`), or in the host's memory beside a
//! GPU (`memory.offload`).

use std::path::Path;
use std::sync::{Arc, Weak};

use rlt_engine::Device;
use rlt_model::Decoder;
use rlt_model::adapter::Adapter;
use rlt_model::config::ModelConfig;
use rlt_model::shared::{Carrier, Share, SharedParameters};
use rlt_ranks::{Lender, Lent, Ranks, fold_in_pairs};

use super::agreement::agree;
use crate::error::Result;

/// How this process holds the models that it loads.
#[derive(Debug, Clone)]
pub enum Holding {
    /// Whole.
    Whole,
    /// A share of each, and the other ranks the rest. They load the same models in the same order.
    Shared(Ranks),
    /// On a GPU but for their blocks, which wait in the host's memory; whole on the processor.
    Offloaded,
    /// The largest of the shares of so many ranks, none of whom is met: for a device that computes nothing.
    Planned(usize),
}

impl Holding {
    /// A model that training changes, on `device`.
    ///
    /// # Errors
    /// What the folder's files report, on all ranks.
    pub fn load(&self, device: &Device, folder: &Path) -> Result<Decoder> {
        self.held(
            folder,
            || match self {
                Self::Offloaded if device.works_as_gpu() => Ok(Decoder::load_offloaded_on(device, folder)?),
                _ => Ok(Decoder::load_on(device, folder)?),
            },
            |share| Ok(Decoder::load_share_on(device, folder, share)?),
        )
    }

    /// A model that is only read, on `device`.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn load_frozen(&self, device: &Device, folder: &Path) -> Result<Decoder> {
        self.held(
            folder,
            || match self {
                Self::Offloaded if device.works_as_gpu() => {
                    Ok(Decoder::load_frozen_offloaded_on(device, folder)?)
                }
                _ => Ok(Decoder::load_frozen_on(device, folder)?),
            },
            |share| Ok(Decoder::load_frozen_share_on(device, folder, share)?),
        )
    }

    /// As [`Self::load_frozen`], with the adapter of another folder beside it.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn load_with_adapter(&self, device: &Device, base: &Path, adapter: &Path) -> Result<Decoder> {
        let decoder = self.load_frozen(device, base)?;
        let adapter = Adapter::load_on(device, adapter, decoder.config());
        let adapter = match self {
            Self::Shared(ranks) => agree(ranks, adapter.map_err(Into::into))?,
            Self::Whole | Self::Offloaded | Self::Planned(_) => adapter?,
        };
        Ok(decoder.with_adapter(adapter))
    }

    /// A model of random weights of the shape in `folder`, on `device`.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn random(&self, device: &Device, folder: &Path, seed: u64) -> Result<Decoder> {
        let config = || Ok::<_, crate::Error>(ModelConfig::from_dir(folder)?);
        self.held(
            folder,
            || Ok(Decoder::random_on(device, &config()?, seed)),
            |share| Ok(Decoder::random_share_on(device, &config()?, seed, share)),
        )
    }

    /// Weights of the shape and settings of `like` from one file, in f32.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn read(&self, like: &Decoder, file: &Path) -> Result<Decoder> {
        match self {
            Self::Offloaded if like.device().works_as_gpu() => Ok(like.read_weights_offloaded(file)?),
            Self::Whole | Self::Offloaded | Self::Planned(_) => Ok(like.read_weights(file)?),
            Self::Shared(ranks) => {
                let read = like.read_weights_share(file, own_share(ranks));
                lend(ranks, agree(ranks, read.map_err(Into::into))?)
            }
        }
    }

    /// The same weights once more, to be changed on their own.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn copy(&self, of: &Decoder) -> Result<Decoder> {
        match self {
            Self::Shared(ranks) => lend(ranks, of.copy()),
            Self::Offloaded if of.device().works_as_gpu() => Ok(of.copy_offloaded()),
            Self::Whole | Self::Offloaded | Self::Planned(_) => Ok(of.copy()),
        }
    }

    fn held(
        &self,
        folder: &Path,
        whole: impl FnOnce() -> Result<Decoder>,
        of_share: impl FnOnce(Share) -> Result<Decoder>,
    ) -> Result<Decoder> {
        match self {
            Self::Whole | Self::Offloaded => whole(),
            Self::Planned(ranks) => of_share(Share::largest(&ModelConfig::from_dir(folder)?, *ranks)),
            Self::Shared(ranks) => {
                let decoder = agree(ranks, of_share(own_share(ranks)))?;
                lend(ranks, decoder)
            }
        }
    }
}

fn own_share(ranks: &Ranks) -> Share {
    Share { rank: ranks.rank(), ranks: ranks.size() }
}

/// Lets the ranks have what each holds of a model. All bring theirs.
fn lend(ranks: &Ranks, decoder: Decoder) -> Result<Decoder> {
    if let Some(shared) = decoder.shared().filter(|_| ranks.size() > 1) {
        let lent = ranks.lend(Arc::new(Shelf(Arc::downgrade(shared))))?;
        shared.carried_by(Box::new(Carried(lent)));
    }
    Ok(decoder)
}

/// What this rank has for the others.
#[derive(Debug)]
struct Shelf(Weak<SharedParameters>);

impl Lender for Shelf {
    fn share(&self, item: usize) -> Vec<u8> {
        self.0.upgrade().map(|shared| shared.share_of(item)).unwrap_or_default()
    }

    fn take(&self, item: usize, parts: Vec<Option<Vec<u8>>>) {
        let Some(shared) = self.0.upgrade() else { return };
        let numbers = |bytes: Vec<u8>| {
            bytes.as_chunks::<4>().0.iter().map(|number| f32::from_le_bytes(*number)).collect::<Vec<f32>>()
        };
        let mut parts: Vec<Option<Vec<f32>>> = parts.into_iter().map(|part| part.map(numbers)).collect();
        fold_in_pairs(&mut parts, |into, other| match (into.as_mut(), other) {
            (Some(into), Some(other)) => into.iter_mut().zip(other).for_each(|(into, other)| *into += other),
            (None, Some(other)) => *into = Some(other.clone()),
            (_, None) => {}
        });
        if let Some(sum) = parts.swap_remove(0) {
            shared.take(item, &sum);
        }
    }
}

/// The way to the others. Once they are lost, every collective says so.
#[derive(Debug)]
struct Carried(Lent);

impl Carrier for Carried {
    fn shares_of(&self, item: usize) -> Option<Vec<Vec<u8>>> {
        self.0.shares_of(item).ok()
    }

    fn hand_in(&self, item: usize, parts: &[&[u8]]) {
        // As with shares: the next collective fails.
        let _ = self.0.hand_in(item, parts);
    }
}
