//! Every collective over every transport: threads, TCP, and MPI where `mpirun` is installed.
#![allow(clippy::print_stdout, clippy::print_stderr)] // What was skipped, and what a rank under mpirun hears.

use std::net::TcpListener;
use std::ops::Range;
use std::process::Command;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use rlt_ranks::{Error, Launch, OnLoss, Ranks, Settings, fold_in_pairs, on_threads};

/// `n` ranks over TCP, each on a thread, with what their watches heard.
fn over_tcp<T: Send>(
    n: usize,
    settings: Settings,
    work: impl Fn(Ranks) -> T + Sync,
) -> (Vec<T>, Receiver<Error>) {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let (heard, news) = channel();
    let done = std::thread::scope(|scope| {
        let start = |rank| {
            let (work, heard) = (&work, heard.clone());
            scope.spawn(move || {
                let launch = Launch::Tcp { rank, size: n, address: format!("127.0.0.1:{port}") };
                let on_loss: OnLoss = Arc::new(move |error: &Error| heard.send(error.clone()).unwrap());
                work(launch.join(settings, &on_loss).unwrap())
            })
        };
        let started: Vec<_> = (0..n).map(start).collect();
        started.into_iter().map(|rank| rank.join().unwrap()).collect()
    });
    (done, news)
}

fn quick() -> Settings {
    Settings { deadline: Duration::from_millis(400), rendezvous: Duration::from_secs(20) }
}

/// An array whose sum rounds.
fn numbers(seed: usize, len: usize) -> Vec<f32> {
    (0..len).map(|i| ((i * 7919 + seed * 104_729) % 1009) as f32 * 0.37 / (1 + seed) as f32).collect()
}

fn shards(len: usize, ranks: usize) -> Vec<Range<usize>> {
    (0..ranks).map(|rank| len * rank / ranks..len * (rank + 1) / ranks).collect()
}

/// What all collectives come to on one rank.
fn everything(ranks: &Ranks) {
    let (rank, size) = (ranks.rank(), ranks.size());
    assert_eq!(ranks.rank_on_host(), rank, "all are on one machine");
    ranks.barrier().unwrap();
    let texts: Vec<Vec<u8>> = (0..size).map(|rank| "x".repeat(rank * 40_000).into_bytes()).collect();
    assert_eq!(ranks.all_gather(&texts[rank]).unwrap(), texts);
    let gathered = ranks.gather_to_first(&texts[rank]).unwrap();
    assert_eq!(gathered, if rank == 0 { texts.clone() } else { Vec::new() });
    for root in 0..size {
        assert_eq!(ranks.broadcast(root, vec![rank as u8; 3]).unwrap(), vec![root as u8; 3]);
    }
    let parts: Vec<Vec<u8>> = (0..size).map(|to| vec![(10 * rank + to) as u8; to + 1]).collect();
    let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
    let got: Vec<Vec<u8>> = (0..size).map(|from| vec![(10 * from + rank) as u8; rank + 1]).collect();
    assert_eq!(ranks.all_to_all(&parts).unwrap(), got);
    assert!(!ranks.any(false).unwrap());
    assert!(ranks.any(rank == size - 1).unwrap());
    assert_eq!(ranks.first_error(None).unwrap(), None);
    let said = ranks.first_error((rank + 1 >= size).then(String::new)).unwrap();
    assert_eq!(said, Some((size - 1, String::new())));
    // Arrays shorter than the number of ranks, too: then some shards are empty.
    for len in [0, 1, 5, 300_000] {
        let shards = shards(len, size);
        let mut all: Vec<Vec<f32>> = (0..size).map(|seed| numbers(seed, len)).collect();
        let mine = ranks.reduce_shards(&all[rank], &shards).unwrap();
        fold_in_pairs(&mut all, |into, other| into.iter_mut().zip(other).for_each(|(a, b)| *a += b));
        assert_eq!(mine, all[0][shards[rank].clone()]);
        let mut full = vec![f32::NAN; len];
        full[shards[rank].clone()].copy_from_slice(&mine);
        ranks.gather_shards(&mut full, &shards).unwrap();
        assert_eq!(full, all[0]);
    }
    assert!(ranks.time_in_collectives() > Duration::ZERO || size == 1);
}

#[test]
fn threads_agree() {
    everything(&Ranks::alone());
    for n in [1, 2, 3, 4, 8] {
        on_threads(n, |ranks| everything(&ranks));
    }
}

#[test]
fn processes_over_tcp_agree() {
    for n in [2, 3, 5] {
        let (_, news) = over_tcp(n, Settings::default(), |ranks| {
            everything(&ranks);
            ranks.barrier().unwrap();
            ranks.leave();
        });
        assert!(news.try_recv().is_err(), "who leaves in good order is no loss");
    }
}

/// Where this test binary runs as a rank of `mpirun`.
const CHILD: &str = "RLT_RANKS_TEST_CHILD";

fn mpirun() -> Option<Command> {
    if std::env::var_os("RLT_TEST_EMULATED").is_some() {
        println!("skipped under an emulator: the MPI library is of this machine's processor");
        return None;
    }
    if Command::new("mpirun").arg("--version").output().is_err() {
        println!("skipped: mpirun is not installed");
        return None;
    }
    let mut command = Command::new("mpirun");
    command.args(["--oversubscribe", "--bind-to", "none", "--quiet"]);
    command.env("OMPI_ALLOW_RUN_AS_ROOT", "1").env("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1");
    Some(command)
}

#[test]
fn processes_under_mpirun_agree() {
    for n in ["1", "2", "4"] {
        let Some(mut command) = mpirun() else { return };
        command.args(["-n", n]).arg(std::env::current_exe().unwrap());
        let done =
            command.args(["--exact", "a_rank_of_mpi", "--ignored"]).env(CHILD, "agree").output().unwrap();
        let text = String::from_utf8_lossy(&[done.stdout, done.stderr].concat()).into_owned();
        assert!(done.status.success(), "{n} ranks: {text}");
    }
}

#[test]
fn a_rank_that_hangs_under_mpirun_ends_the_job() {
    let Some(mut command) = mpirun() else { return };
    command.args(["-n", "2"]).arg(std::env::current_exe().unwrap()).args([
        "--exact",
        "a_rank_of_mpi",
        "--ignored",
        "--nocapture",
    ]);
    let started = Instant::now();
    let done = command.env(CHILD, "hang").env("RLT_RANKS_DEADLINE", "1").output().unwrap();
    let text = String::from_utf8_lossy(&[done.stdout, done.stderr].concat()).into_owned();
    assert!(!done.status.success());
    assert!(text.contains("did not answer for 1 s (barrier 1)"), "{text}");
    assert!(started.elapsed() < Duration::from_secs(30), "the rank sleeps for a minute");
}

#[test]
#[ignore = "runs under mpirun, started by the tests before it"]
fn a_rank_of_mpi() {
    let Ok(what) = std::env::var(CHILD) else { return };
    let (launch, settings) = Launch::from_environment().unwrap();
    let on_loss: OnLoss = Arc::new(|error: &Error| {
        eprintln!("{error}");
        std::process::exit(1);
    });
    let ranks = launch.join(settings, &on_loss).unwrap();
    match what.as_str() {
        "agree" => everything(&ranks),
        _ if ranks.rank() == 1 => std::thread::sleep(Duration::from_secs(60)),
        _ => ranks.barrier().unwrap(),
    }
    ranks.leave();
}

#[test]
fn a_thread_that_panics_is_named_to_the_others() {
    let outcome = std::panic::catch_unwind(|| {
        on_threads(3, |ranks| {
            assert!(ranks.rank() != 1, "the disk is full");
            let error = ranks.barrier().unwrap_err();
            assert!(
                matches!(&error, Error::Failed { rank: 1, why, .. } if why.contains("the disk is full")),
                "{error}"
            );
        });
    });
    let said = outcome.unwrap_err();
    let said = said
        .downcast_ref::<&str>()
        .map_or_else(|| said.downcast_ref::<String>().cloned().unwrap(), ToString::to_string);
    assert!(said.contains("the disk is full"), "{said}");
}

#[test]
fn a_thread_that_leaves_early_is_named_to_the_others() {
    on_threads(3, |ranks| {
        if ranks.rank() != 1 {
            let error = ranks.barrier().unwrap_err();
            assert!(matches!(error, Error::Lost { rank: 1, .. }), "{error}");
        }
    });
}

#[test]
fn ranks_at_different_collectives_learn_so() {
    on_threads(2, |ranks| {
        let error =
            if ranks.rank() == 0 { ranks.barrier().unwrap_err() } else { ranks.any(true).unwrap_err() };
        let text = error.to_string();
        assert!(text.contains("the barrier 1") && text.contains("the all-gather 1"), "{text}");
    });
    on_threads(2, |ranks| {
        let len = 4 + 2 * ranks.rank();
        let text = ranks.reduce_shards(&vec![0.0; len], &[0..2, 2..len]).unwrap_err().to_string();
        assert!(text.contains("of 4 numbers") && text.contains("of 6 numbers"), "{text}");
    });
}

#[test]
fn a_process_that_ends_is_a_loss_to_all() {
    let started = Instant::now();
    let (errors, news) = over_tcp(3, Settings::default(), |ranks| {
        ranks.barrier().unwrap();
        // Rank 1 is dropped with its connections, as a killed process would.
        (ranks.rank() != 1).then(|| {
            let error = ranks.barrier().unwrap_err();
            std::thread::sleep(Duration::from_millis(300));
            error
        })
    });
    assert!(matches!(errors[0], Some(Error::Lost { .. })), "{:?}", errors[0]);
    assert!(started.elapsed() < Duration::from_secs(10));
    let heard = news.recv_timeout(Duration::from_secs(5)).unwrap();
    assert!(matches!(heard, Error::Lost { .. }), "{heard}");
}

#[test]
fn a_failure_is_told_in_the_ranks_own_words() {
    let (_, news) = over_tcp(3, Settings::default(), |ranks| {
        ranks.barrier().unwrap();
        if ranks.rank() == 2 {
            ranks.abort("row 9: the reward is not finite");
        } else {
            std::thread::sleep(Duration::from_millis(300));
        }
    });
    for _ in 0..2 {
        let heard = news.recv_timeout(Duration::from_secs(5)).unwrap();
        let Error::Failed { rank, why, .. } = heard else { panic!("{heard}") };
        assert_eq!((rank, why.as_str()), (2, "row 9: the reward is not finite"));
    }
}

#[test]
fn who_does_not_come_in_time_is_named() {
    let (errors, _news) = over_tcp(2, quick(), |ranks| {
        if ranks.rank() == 1 {
            std::thread::sleep(Duration::from_millis(1500));
            return None;
        }
        Some(ranks.barrier().unwrap_err().to_string())
    });
    let text = errors[0].as_ref().unwrap();
    assert!(text.starts_with("rank 1 on ") && text.contains("did not answer for 0 s (barrier 1)"), "{text}");
}

#[test]
fn strangers_and_other_jobs_are_not_let_in() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let join = move |rank, size, seconds| {
        let launch = Launch::Tcp { rank, size, address: format!("127.0.0.1:{port}") };
        let settings = Settings { rendezvous: Duration::from_secs(seconds), ..Settings::default() };
        launch.join(settings, &(Arc::new(|_: &Error| ()) as OnLoss))
    };
    std::thread::scope(|scope| {
        let first = scope.spawn(move || join(0, 2, 20));
        let stranger = scope.spawn(move || {
            use std::io::Write;
            let until = Instant::now() + Duration::from_secs(5);
            while Instant::now() < until {
                if let Ok(mut stream) = std::net::TcpStream::connect(("127.0.0.1", port)) {
                    let _ = stream.write_all(b"GET / HTTP/1.1\r\n\r\n and a little more than twenty bytes");
                    return;
                }
            }
        });
        stranger.join().unwrap();
        let second = scope.spawn(move || join(1, 2, 20));
        assert_eq!(first.join().unwrap().unwrap().size(), 2);
        second.join().unwrap().unwrap();
    });
    std::thread::scope(|scope| {
        let first = scope.spawn(move || join(0, 2, 20).unwrap_err().to_string());
        let other = scope.spawn(move || join(1, 3, 2).unwrap_err().to_string());
        let text = first.join().unwrap();
        assert!(text.contains("says that it is rank 1 of 3, and this is rank 0 of 2"), "{text}");
        other.join().unwrap();
    });
    let alone = join(0, 2, 1).unwrap_err().to_string();
    assert_eq!(alone, format!("of 2 ranks these did not come to 127.0.0.1:{port}: 1"));
}
