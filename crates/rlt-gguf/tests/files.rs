//! Files as the `gguf` Python package writes them, and files as nobody should.
//!
//! `golden/kinds.gguf` and the values `golden/kinds.f32` are by `tests/parity/gguf_golden.py`.

use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use rlt_gguf::{Gguf, Kind};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

/// Opens `bytes` as a file.
fn open(bytes: &[u8]) -> rlt_gguf::Result<Gguf> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("made-up.gguf");
    fs::write(&path, bytes).unwrap();
    Gguf::open(&path)
}

/// What is said of `bytes`, as one line.
fn refusal(bytes: &[u8]) -> String {
    let message = open(bytes).map(drop).expect_err("the file was opened").to_string();
    assert!(message.contains("made-up.gguf: ") && !message.contains('\n'), "{message}");
    message
}

#[test]
fn values_are_those_of_the_python_package_bit_for_bit() {
    let file = Gguf::open(&golden("kinds.gguf")).unwrap();
    let expected = fs::read(golden("kinds.f32")).unwrap();
    let mut expected = expected.as_chunks::<4>().0.iter().map(|b| u32::from_le_bytes(*b));
    for kind in Kind::ALL {
        assert!(file.tensors().iter().any(|tensor| tensor.kind == kind), "{kind:?}");
    }
    for tensor in file.tensors() {
        assert_eq!(
            (tensor.shape.as_slice(), format!("{:?}", tensor.kind)),
            (&[2, 512][..], tensor.name.clone())
        );
        let mut values = vec![0.0; tensor.len()];
        file.read_rows(tensor, 0, &mut values).unwrap();
        let mut second = vec![0.0; tensor.columns()];
        file.read_rows(tensor, 1, &mut second).unwrap();
        assert_eq!(second, values[512..], "{}: a row by itself", tensor.name);
        for (i, value) in values.iter().enumerate() {
            assert_eq!(Some(value.to_bits()), expected.next(), "{}, value {i}: {value}", tensor.name);
        }
        assert!(file.read_rows(tensor, 2, &mut second).is_err());
        assert!(file.read_rows(tensor, 0, &mut second[..100]).is_err());
    }
    assert_eq!(expected.next(), None);
}

#[test]
fn metadata_of_every_type() {
    let file = Gguf::open(&golden("kinds.gguf")).unwrap();
    let number = |name: &str| file.number(&format!("made-up.{name}")).unwrap().unwrap();
    assert_eq!(number("uint8"), 200.0);
    assert_eq!(number("int8"), -100.0);
    assert_eq!(number("uint16"), 60_000.0);
    assert_eq!(number("int16"), -30_000.0);
    assert_eq!(number("uint32"), 4e9);
    assert_eq!(number("int32"), -2e9);
    assert_eq!(number("float32"), f64::from(0.1_f32));
    assert_eq!(number("float64"), 0.1);
    assert_eq!(number("int64"), -9007199254740992.0);
    assert_eq!(file.size("made-up.uint64").unwrap(), Some(1 << 53));
    assert_eq!(file.flag("made-up.bool").unwrap(), Some(true));
    assert_eq!(file.text("made-up.string").unwrap(), Some("Ġ é"));
    assert_eq!(file.text("general.architecture").unwrap(), Some("made-up"));
    assert_eq!(file.texts("made-up.texts").unwrap(), Some(vec!["a", "", "Ġb"]));
    assert_eq!(file.numbers("made-up.numbers").unwrap(), Some(vec![1.0, -2.0, 3.0]));
    assert_eq!(file.list_len("made-up.texts"), Some(3));
    assert_eq!((file.text("absent").unwrap(), file.texts("absent").unwrap()), (None, None));
    for (wrong, says) in [
        (file.size("made-up.int8").map(drop), "made-up.int8 is a whole number, not a whole number from 0"),
        (file.size("made-up.float32").map(drop), "is a number, not a whole number"),
        (file.text("made-up.bool").map(drop), "is true or false, not a text"),
        (file.number("made-up.texts").map(drop), "is a list, not a number"),
        (file.texts("made-up.numbers").map(drop), "is a list, not a list of texts"),
        (file.numbers("made-up.texts").map(drop), "is a list, not a list of numbers"),
        (file.flag("made-up.string").map(drop), "is a text, not true or false"),
    ] {
        let message = wrong.unwrap_err().to_string();
        assert!(message.contains(says), "{message}");
    }
}

/// A file by hand.
#[derive(Clone)]
struct MadeUp {
    version: u32,
    n_tensors: u64,
    n_keys: u64,
    keys: Vec<u8>,
    tensors: Vec<u8>,
    data: Vec<u8>,
}

fn string(text: &[u8]) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes(), text].concat()
}

fn key(name: &str, kind: u32, value: &[u8]) -> Vec<u8> {
    [&string(name.as_bytes()), &kind.to_le_bytes()[..], value].concat()
}

fn tensor(name: &str, shape: &[u64], kind: u32, offset: u64) -> Vec<u8> {
    let sizes: Vec<u8> = shape.iter().flat_map(|n| n.to_le_bytes()).collect();
    let n = (shape.len() as u32).to_le_bytes();
    [&string(name.as_bytes()), &n[..], &sizes, &kind.to_le_bytes(), &offset.to_le_bytes()].concat()
}

impl MadeUp {
    /// Two f32 tensors of eight numbers.
    fn good() -> Self {
        let tensors = [tensor("a", &[4, 2], 0, 0), tensor("b", &[8], 0, 32)].concat();
        Self { version: 3, n_tensors: 2, n_keys: 1, keys: key("k", 7, &[1]), tensors, data: vec![0; 64] }
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = [
            &b"GGUF"[..],
            &self.version.to_le_bytes(),
            &self.n_tensors.to_le_bytes(),
            &self.n_keys.to_le_bytes(),
            &self.keys,
            &self.tensors,
        ]
        .concat();
        bytes.resize(bytes.len().next_multiple_of(32), 0);
        [bytes, self.data.clone()].concat()
    }
}

#[test]
fn both_versions_are_read_and_no_other() {
    for version in [2, 3] {
        let file = open(&MadeUp { version, ..MadeUp::good() }.bytes()).unwrap();
        assert_eq!(file.tensors().iter().map(|t| t.name.as_str()).collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(file.tensor("a").unwrap().shape, [2, 4]);
    }
    for (version, says) in [(1, "GGUF version 1;"), (4, "GGUF version 4;"), (3 << 24, "is big-endian")] {
        let message = refusal(&MadeUp { version, ..MadeUp::good() }.bytes());
        assert!(message.contains(says), "{message}");
    }
}

#[test]
fn hostile_headers_end_in_one_line() {
    let good = MadeUp::good();
    let with_tensors = |tensors: Vec<Vec<u8>>| MadeUp {
        n_tensors: tensors.len() as u64,
        tensors: tensors.concat(),
        ..good.clone()
    };
    let with_key = |bytes: Vec<u8>| MadeUp { keys: bytes, ..good.clone() };
    let max = u64::MAX.to_le_bytes();
    let long_name = [&(u64::MAX - 3).to_le_bytes(), &b"k"[..]].concat();
    let list = |element: u32, n: u64| [&element.to_le_bytes()[..], &n.to_le_bytes()].concat();
    let cases: Vec<(MadeUp, &str)> = vec![
        (MadeUp { n_tensors: u64::MAX, ..good.clone() }, "announces 18446744073709551615 tensors"),
        (MadeUp { n_keys: u64::MAX, ..good.clone() }, "announces 18446744073709551615 metadata keys"),
        (MadeUp { n_keys: 60_000, ..good.clone() }, "announces 60000 metadata keys"),
        (MadeUp { n_keys: 2, ..good.clone() }, "truncated or damaged"),
        (with_key(long_name), "truncated or damaged"),
        (with_key(key("k", 13, &[0])), "\"k\": has the unknown type 13"),
        (with_key(key("k", 8, &max)), "\"k\": at byte"),
        (with_key(key("k", 9, &list(4, u64::MAX))), "\"k\": at byte"),
        (with_key(key("k", 9, &list(0, u64::MAX / 2))), "\"k\": at byte"),
        (with_key(key("k", 9, &list(8, 1 << 60))), "\"k\": at byte"),
        (with_key(key("k", 9, &list(9, 1))), "a list of lists"),
        (with_key(key("k", 9, &list(77, 1))), "unknown type 77"),
        (with_key(key("general.alignment", 4, &[0; 4])), "general.alignment is no power of two"),
        (
            with_key(key("general.alignment", 4, &24_u32.to_le_bytes())),
            "general.alignment is no power of two",
        ),
        (with_key(key("general.alignment", 8, &string(b"32"))), "general.alignment is no power of two"),
        (
            MadeUp { n_keys: 2, keys: [key("k", 7, &[1]), key("k", 7, &[1])].concat(), ..good.clone() },
            "key \"k\" twice",
        ),
        (with_tensors(vec![tensor("a", &[8], 0, 0), tensor("a", &[8], 0, 32)]), "the tensor a twice"),
        (with_tensors(vec![tensor("a", &[8], 0, 0), tensor("b", &[2], 0, 0)]), "b and a overlap"),
        (with_tensors(vec![tensor("a", &[16], 0, 0), tensor("b", &[8], 0, 32)]), "a and b overlap"),
        (with_tensors(vec![tensor("a", &[8], 0, 8)]), "no multiple of 32"),
        (with_tensors(vec![tensor("a", &[8], 0, 64)]), "ends past the end of the file"),
        (with_tensors(vec![tensor("a", &[17], 0, 0)]), "ends past the end of the file"),
        (with_tensors(vec![tensor("a", &[8], 0, u64::MAX - 31)]), "larger than any file"),
        (with_tensors(vec![tensor("a", &[u64::MAX, 2], 0, 0)]), "zero or too large"),
        (with_tensors(vec![tensor("a", &[1 << 40, 1 << 40], 0, 0)]), "zero or too large"),
        (with_tensors(vec![tensor("a", &[1 << 62], 0, 0)]), "larger than any file"),
        (with_tensors(vec![tensor("a", &[0], 0, 0)]), "zero or too large"),
        (with_tensors(vec![tensor("a", &[], 0, 0)]), "0 dimensions"),
        (with_tensors(vec![tensor("a", &[1; 5], 0, 0)]), "5 dimensions"),
        (with_tensors(vec![tensor("a", &[33], 8, 0)]), "no whole Q8_0 blocks of 32"),
        (with_tensors(vec![tensor("a", &[128], 12, 0)]), "no whole Q4_K blocks of 256"),
        (with_tensors(vec![tensor("a", &[256], 10, 0)]), "tensor a: its number format Q2_K is not read"),
        (with_tensors(vec![tensor("a", &[256], 999, 0)]), "its number format number 999 is not read"),
    ];
    for (made_up, says) in cases {
        let message = refusal(&made_up.bytes());
        assert!(message.contains(says), "{message} does not say {says:?}");
    }
    refusal(b"");
    assert!(refusal(b"{\"model\": 1}").contains("not a GGUF file"));
    let folder = tempfile::tempdir().unwrap();
    assert!(Gguf::open(folder.path()).unwrap_err().to_string().contains("is not a file"));
    assert!(Gguf::open(&folder.path().join("absent.gguf")).unwrap_err().to_string().contains("absent.gguf"));
}

#[test]
fn a_file_cut_anywhere_is_refused() {
    let whole = fs::read(golden("kinds.gguf")).unwrap();
    // The package pads the end of the file to the alignment: what is cut there is not missed.
    let padding = 31;
    for length in (0..whole.len() - padding).step_by(37) {
        refusal(&whole[..length]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn a_damaged_header_is_read_or_refused_and_never_worse(
        damage in prop::collection::vec((0_usize..1200, any::<u8>()), 1..6)
    ) {
        let mut bytes = fs::read(golden("kinds.gguf")).unwrap();
        for (at, value) in damage {
            bytes[at] = value;
        }
        if let Ok(file) = open(&bytes) {
            let keys: Vec<String> = file.keys().map(str::to_owned).collect();
            for key in keys {
                let _ = (file.text(&key), file.size(&key), file.number(&key), file.flag(&key));
                let _ = (file.texts(&key), file.numbers(&key));
            }
            for tensor in file.tensors() {
                let mut values = vec![0.0; tensor.len()];
                file.read_rows(tensor, 0, &mut values).unwrap();
            }
        }
    }
}
