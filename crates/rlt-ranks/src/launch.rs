//! How a job was started, read from what its launcher put into the environment.

use std::time::Duration;

use crate::error::{Error, Result};
use crate::mpi;
use crate::ranks::Ranks;
use crate::settings::{OnLoss, Settings};
use crate::tcp;

/// What carries the bytes of this job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Launch {
    /// One process.
    Alone,
    /// Processes that find each other at an address, as `torchrun` and Kubernetes' training jobs say it.
    Tcp {
        /// This process's place.
        rank: usize,
        /// How many there are.
        size: usize,
        /// "HOST:PORT" of rank 0.
        address: String,
    },
    /// Processes that `mpirun` (or `srun` with its MPI support) started.
    Mpi {
        /// Library names to try, in order.
        libraries: Vec<String>,
    },
}

/// Most ranks of a job.
const MOST_RANKS: usize = 65_536;

impl Launch {
    /// Reads the environment: MPI launchers' variables first, then RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT; without
    /// either, one process.
    ///
    /// # Errors
    /// [`Error::Launch`] where the variables contradict each other.
    pub fn from_environment() -> Result<(Self, Settings)> {
        Self::from_variables(|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
    }

    /// How many ranks of the job run on this machine, as launchers tell it (Open MPI, MPICH, `torchrun`, Slurm); 1 where
    /// nobody says.
    pub fn ranks_of_this_machine() -> usize {
        let names =
            ["OMPI_COMM_WORLD_LOCAL_SIZE", "MPI_LOCALNRANKS", "LOCAL_WORLD_SIZE", "SLURM_NTASKS_PER_NODE"];
        let said = names.iter().find_map(|name| std::env::var(name).ok()?.parse().ok());
        said.unwrap_or(1).max(1)
    }

    fn from_variables(variable: impl Fn(&str) -> Option<String>) -> Result<(Self, Settings)> {
        let number = |name: &str| {
            let parse = |value: String| {
                let wrong = |_| Error::Launch(format!("{name} must be a whole number, and is {value:?}"));
                value.trim().parse::<usize>().map_err(wrong)
            };
            variable(name).map(parse).transpose()
        };
        let mut settings = Settings::default();
        if let Some(seconds) = number("RLT_RANKS_DEADLINE")? {
            settings.deadline = Duration::from_secs(seconds.max(1) as u64);
            settings.rendezvous = settings.rendezvous.min(settings.deadline);
        }
        // The number of processes, as Open MPI, MPICH and Intel MPI tell it; srun tells PMIx its own way.
        let mut mpi_size = None;
        for name in ["OMPI_COMM_WORLD_SIZE", "PMI_SIZE"] {
            mpi_size = mpi_size.or(number(name)?);
        }
        if mpi_size.is_none() && variable("PMIX_RANK").is_some() {
            mpi_size = number("SLURM_NTASKS")?;
        }
        let torch = [number("RANK")?, number("WORLD_SIZE")?];
        let launch = match (mpi_size, torch) {
            (Some(size), _) if size > 1 => {
                let chosen = variable("RLT_MPI_LIBRARY");
                let names = chosen.map_or_else(|| mpi::library_names(&variable), |name| vec![name]);
                Self::Mpi { libraries: names }
            }
            (None, [rank, Some(size)]) if size > 1 => {
                let missing = |name: &str| {
                    let what = format!(
                        "WORLD_SIZE is {size}, and {name} is not set; unset WORLD_SIZE for one process"
                    );
                    Error::Launch(what)
                };
                let rank = rank.ok_or_else(|| missing("RANK"))?;
                if rank >= size || size > MOST_RANKS {
                    let what = format!(
                        "RANK is {rank} and WORLD_SIZE is {size}: ranks go from 0 to WORLD_SIZE - 1, and \
                         {MOST_RANKS} are the most"
                    );
                    return Err(Error::Launch(what));
                }
                let host = variable("MASTER_ADDR").ok_or_else(|| missing("MASTER_ADDR"))?;
                let port = variable("MASTER_PORT").ok_or_else(|| missing("MASTER_PORT"))?;
                Self::Tcp { rank, size, address: format!("{host}:{port}") }
            }
            _ => Self::Alone,
        };
        Ok((launch, settings))
    }

    /// Joins the job. `on_loss` hears of other ranks' ends where the transport notices them by itself.
    ///
    /// # Errors
    /// [`Error::Launch`] where the ranks do not find each other, or no MPI library is found.
    pub fn join(self, settings: Settings, on_loss: &OnLoss) -> Result<Ranks> {
        Ok(match self {
            Self::Alone => Ranks::alone(),
            Self::Tcp { rank, size, address } => {
                Ranks::over(Box::new(tcp::join(rank, size, &address, settings, on_loss)?))
            }
            Self::Mpi { libraries } => Ranks::over(Box::new(mpi::join(&libraries, settings, on_loss)?)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn launch(variables: &[(&str, &str)]) -> Result<Launch, String> {
        let find = |name: &str| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_string())
        };
        Launch::from_variables(find).map(|(launch, _)| launch).map_err(|error| error.to_string())
    }

    #[test]
    fn what_launchers_say_is_understood() {
        assert_eq!(launch(&[]), Ok(Launch::Alone));
        assert_eq!(launch(&[("WORLD_SIZE", "1"), ("RANK", "0")]), Ok(Launch::Alone));
        assert_eq!(launch(&[("OMPI_COMM_WORLD_SIZE", "1")]), Ok(Launch::Alone));
        let torch = [("RANK", "2"), ("WORLD_SIZE", "4"), ("MASTER_ADDR", "node1"), ("MASTER_PORT", "29500")];
        let tcp = Launch::Tcp { rank: 2, size: 4, address: "node1:29500".into() };
        assert_eq!(launch(&torch), Ok(tcp));
        // Inside mpirun, torchrun's leftovers do not count.
        let both: Vec<_> = [("OMPI_COMM_WORLD_SIZE", "2")].into_iter().chain(torch).collect();
        assert!(matches!(launch(&both), Ok(Launch::Mpi { .. })));
        let named = launch(&[("PMI_SIZE", "2"), ("RLT_MPI_LIBRARY", "/opt/libmpi.so")]);
        assert_eq!(named, Ok(Launch::Mpi { libraries: vec!["/opt/libmpi.so".into()] }));
        let slurm = launch(&[("PMIX_RANK", "0"), ("SLURM_NTASKS", "8")]);
        assert!(matches!(slurm, Ok(Launch::Mpi { .. })));
    }

    #[test]
    fn what_contradicts_itself_is_refused() {
        let refused = |variables: &[(&str, &str)]| launch(variables).unwrap_err();
        let missing = refused(&[("WORLD_SIZE", "4")]);
        assert!(missing.starts_with("WORLD_SIZE is 4, and RANK is not set"), "{missing}");
        let beyond = refused(&[("WORLD_SIZE", "4"), ("RANK", "4")]);
        assert!(beyond.starts_with("RANK is 4 and WORLD_SIZE is 4"), "{beyond}");
        let text = refused(&[("WORLD_SIZE", "four")]);
        assert_eq!(text, "WORLD_SIZE must be a whole number, and is \"four\"");
    }
}
