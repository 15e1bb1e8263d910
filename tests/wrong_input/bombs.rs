//! A few bytes that would become gigabytes, and what has no end: bounded memory, one line.
#![cfg(unix)]

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use parquet::basic::{Compression, GzipLevel, ZstdLevel};
use parquet::data_type::{ByteArray, ByteArrayType, Int64Type};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedColumnWriter, SerializedFileWriter};
use parquet::schema::parser::parse_message_type;

use super::emulated::{is_emulated, patience};
use super::{model_with, write};

/// The most memory these calls may map, kB: 1 GiB to work in, and what the program maps with a small file (its code, stacks,
/// and what the allocator sets aside for each thread). Under an emulator, whose own memory would count, there is no bound.
const MOST_KB: u64 = 1 << 20;

/// `rlt` in `dir` with bounded memory, after a shell's `before`.
fn rlt(dir: &Path, before: &str, args: &str) -> Output {
    let rlt = assert_cmd::cargo::cargo_bin!("rlt").display().to_string();
    let bound = if is_emulated() { String::new() } else { format!("ulimit -v {MOST_KB};") };
    Command::new("timeout")
        .arg(patience(60.0).to_string())
        .args(["bash", "-c", &format!("{bound} {before} {rlt} --threads 2 {args}")])
        .current_dir(dir)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn refused(dir: &Path, before: &str, args: &str, says: &str) {
    let output = rlt(dir, before, args);
    let stderr = String::from_utf8_lossy(&output.stderr);
    let lines: Vec<&str> = stderr.lines().filter(|line| line.starts_with("error:")).collect();
    assert_eq!((output.status.code(), lines.len()), (Some(1), 1), "{args}: {stderr}");
    assert!(lines[0].contains(says), "{args}: {stderr}");
}

/// A parquet file of one column, in one page of one row group.
fn parquet_file(
    path: &Path,
    schema: &str,
    packed: Compression,
    column: impl FnOnce(&mut SerializedColumnWriter),
) {
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let properties = WriterProperties::builder()
        .set_compression(packed)
        .set_data_page_size_limit(1 << 30)
        .set_dictionary_page_size_limit(1 << 30)
        .set_data_page_row_count_limit(usize::MAX)
        .set_statistics_enabled(parquet::file::properties::EnabledStatistics::None)
        .build();
    let mut writer =
        SerializedFileWriter::new(File::create(path).unwrap(), schema, Arc::new(properties)).unwrap();
    let mut group = writer.next_row_group().unwrap();
    let mut leaf = group.next_column().unwrap().unwrap();
    column(&mut leaf);
    leaf.close().unwrap();
    group.close().unwrap();
    writer.close().unwrap();
}

const TEXT: &str = "message m { optional binary question (UTF8); }";
const TEXTS: &str = "message m { optional group question (LIST) { repeated group list { optional binary element (UTF8); } } }";
const NUMBERS: &str =
    "message m { optional group question (LIST) { repeated group list { optional int64 element; } } }";

#[test]
fn parquet_bombs() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("rows.parquet");
    let zstd = || Compression::ZSTD(ZstdLevel::try_new(1).unwrap());
    let calls = |says: &str| {
        assert!(fs::metadata(&path).unwrap().len() < 2 << 20);
        model_with(dir.path(), "unused.json", "{}");
        refused(dir.path(), "", "grade --data rows.parquet --out out.jsonl", says);
        // One row is not asked for in vain, either.
        refused(dir.path(), "", "inspect --model model --data rows.parquet --row 1", says);
    };
    for packed in [zstd(), Compression::SNAPPY, Compression::GZIP(GzipLevel::try_new(1).unwrap())] {
        parquet_file(&path, TEXT, packed, |leaf| {
            let value = ByteArray::from(vec![b'x'; 250 << 20]);
            leaf.typed::<ByteArrayType>().write_batch(&[value], Some(&[1]), None).unwrap();
        });
        if packed != Compression::SNAPPY {
            calls("MB of pages would have to be held at once");
        }
    }
    // A value of 100 MB, in pages that can be held.
    parquet_file(&path, TEXT, zstd(), |leaf| {
        let value = ByteArray::from(vec![b'x'; 90 << 20]);
        leaf.typed::<ByteArrayType>().write_batch(&[value], Some(&[1]), None).unwrap();
    });
    calls("row 1: over 64 MB long, which is more than a row may have");
    // Ten million rows of nothing.
    parquet_file(&path, TEXT, zstd(), |leaf| {
        leaf.typed::<ByteArrayType>().write_batch(&[], Some(&vec![0; 10_000_000]), None).unwrap();
    });
    refused(
        dir.path(),
        "",
        "grade --data rows.parquet --out out.jsonl",
        "rows and more repeat what the file says in a few bytes",
    );
    // One row of millions of numbers, and one of a text a hundred thousand times.
    let (n, mut repetition) = (5_000_000, vec![1; 5_000_000]);
    repetition[0] = 0;
    parquet_file(&path, NUMBERS, zstd(), |leaf| {
        leaf.typed::<Int64Type>().write_batch(&vec![7; n], Some(&vec![3; n]), Some(&repetition)).unwrap();
    });
    calls("a row of more than 2 million values");
    let n = 50_000;
    parquet_file(&path, TEXTS, zstd(), |leaf| {
        let value = ByteArray::from(vec![b'x'; 10_000]);
        let values = vec![value; n];
        leaf.typed::<ByteArrayType>()
            .write_batch(&values, Some(&vec![3; n]), Some(&repetition[..n]))
            .unwrap();
    });
    calls("rows that may be over 128 MB long");
}

#[test]
fn data_without_end() {
    let dir = tempfile::tempdir().unwrap();
    let long = "over 64 MB long, which is more than a row may have";
    let grade = |file: &str| format!("grade --data {file} --out out.jsonl");
    for name in ["zero.jsonl", "zero.csv", "zero.parquet"] {
        symlink("/dev/zero", dir.path().join(name)).unwrap();
        refused(dir.path(), "", &grade(name), &format!("{name}: a device or a socket, not a data file"));
    }
    refused(dir.path(), "", &grade("/dev/zero"), "a device or a socket");
    // Through pipes: a line, a list, an element and a field of CSV without end.
    refused(dir.path(), "", &grade("<(cat /dev/zero)"), long);
    refused(dir.path(), "", &grade("<(yes '[' | tr -d '\\n')"), long);
    refused(dir.path(), "", &grade("<(echo '['; yes '\"x' | tr -d '\\n\"')"), long);
    refused(
        dir.path(),
        "mkfifo pipe.csv; (echo q,n; tr '\\0' x </dev/zero) >pipe.csv & ",
        &grade("pipe.csv"),
        long,
    );
    assert!(!dir.path().join("out.jsonl").exists());
}

#[test]
fn rows_from_a_pipe() {
    let dir = tempfile::tempdir().unwrap();
    let rows = "{\"gold\":\"4\",\"prediction\":\"4\"}\n{\"gold\":\"4\",\"prediction\":\"5\"}\n";
    write(dir.path(), "rows.jsonl", rows);
    let output = rlt(dir.path(), "gzip -k rows.jsonl;", "grade --data <(zcat rows.jsonl.gz) --out out.jsonl");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(fs::read_to_string(dir.path().join("out.jsonl")).unwrap().lines().count(), 2);
    // A list of rows, too; and what is read twice says so.
    write(dir.path(), "list.json", format!("[{}]", rows.trim().replace('\n', ",")));
    let output = rlt(dir.path(), "", "grade --data <(cat list.json) --out list.jsonl");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let select = "select --data <(cat rows.jsonl) --out kept.jsonl --by best";
    refused(dir.path(), "", select, "a pipe, which can be read only once");
}
