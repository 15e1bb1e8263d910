use super::*;

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|x| x.to_bits()).collect()
}

/// Zeros of both signs, subnormals, the ends of the range, and numbers that need rounding.
const SAMPLES: [f32; 12] = [
    0.0,
    -0.0,
    1.0,
    -1.5,
    std::f32::consts::PI,
    1e-40,
    f32::MIN_POSITIVE,
    f32::MAX,
    -f32::MAX,
    65504.0,
    6e-8,
    0.1,
];

fn write_two(path: &Path, dtype: Dtype) {
    let many: Vec<f32> = (0..200_000).map(|i| i as f32 * 0.37 - 1e4).collect();
    let tensors = [
        TensorView { name: "b.weight", shape: &[3, 4], data: &SAMPLES },
        TensorView { name: "a.weight", shape: &[200_000], data: &many },
    ];
    write_safetensors(path, &tensors, dtype).expect("written");
}

#[test]
fn every_number_format_round_trips() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("model.safetensors");
    for (dtype, rounded) in [
        (Dtype::F32, (|x| x) as fn(f32) -> f32),
        (Dtype::Bf16, |x| half::bf16::from_f32(x).to_f32()),
        (Dtype::F16, |x| half::f16::from_f32(x).to_f32()),
    ] {
        write_two(&path, dtype);
        let weights = Weights::open(dir.path()).expect("opens");
        assert_eq!(weights.names(), ["a.weight", "b.weight"]);
        assert_eq!(weights.shape("b.weight").expect("there"), [3, 4]);
        assert_eq!(weights.dtype("b.weight").expect("there"), dtype);
        let expected: Vec<f32> = SAMPLES.iter().map(|&x| rounded(x)).collect();
        assert_eq!(bits(&weights.read_f32("b.weight", &[3, 4]).expect("reads")), bits(&expected));
        let many = weights.read_f32("a.weight", &[200_000]).expect("reads");
        assert!(many.iter().enumerate().all(|(i, &x)| x == rounded(i as f32 * 0.37 - 1e4)));
    }
    let left: Vec<_> = std::fs::read_dir(dir.path()).expect("a folder").collect();
    assert_eq!(left.len(), 1, "no temporary file is left: {left:?}");
}

#[test]
fn bf16_rounds_to_nearest_even_and_keeps_infinity_and_nan() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("x.safetensors");
    // 1 + 2^-8 lies half way between 1 and 1 + 2^-7; 1 + 3 * 2^-8 between 1 + 2^-7 and 1 + 2^-6.
    let data = [1.0 + 1.0 / 256.0, 1.0 + 3.0 / 256.0, f32::INFINITY, f32::NAN];
    write_safetensors(&path, &[TensorView { name: "x", shape: &[4], data: &data }], Dtype::Bf16)
        .expect("written");
    let read = Weights::open_file(&path).expect("opens").read_f32("x", &[4]).expect("reads");
    assert_eq!(read[..3], [1.0, 1.0 + 1.0 / 64.0, f32::INFINITY]);
    assert!(read[3].is_nan());
}

#[test]
fn the_same_tensors_give_the_same_bytes() {
    let dir = tempfile::tempdir().expect("a folder");
    let (one, two) = (dir.path().join("1"), dir.path().join("2"));
    write_two(&one, Dtype::Bf16);
    write_two(&two, Dtype::Bf16);
    assert_eq!(std::fs::read(one).expect("reads"), std::fs::read(two).expect("reads"));
}

#[test]
fn a_failed_write_leaves_the_old_file() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("model.safetensors");
    write_two(&path, Dtype::F32);
    let before = std::fs::read(&path).expect("reads");
    let short = TensorView { name: "x", shape: &[5], data: &[1.0] };
    let message = write_safetensors(&path, &[short], Dtype::F32).expect_err("too few").to_string();
    assert!(message.contains('x') && message.contains("[5]"), "{message}");
    let twice = TensorView { name: "x", shape: &[1], data: &[1.0] };
    write_safetensors(&path, &[twice, twice], Dtype::F32).expect_err("a name twice");
    assert_eq!(std::fs::read(&path).expect("reads"), before);

    // A folder cannot be replaced by a file: the rename fails after everything was written.
    let folder = dir.path().join("folder");
    std::fs::create_dir(&folder).expect("made");
    write_safetensors(&folder, &[twice], Dtype::F32).expect_err("a folder is in the way");
    assert_eq!(std::fs::read_dir(dir.path()).expect("a folder").count(), 2, "no temporary file is left");
}

#[test]
fn wrong_requests_name_file_and_tensor() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("model.safetensors");
    write_two(&path, Dtype::F32);
    let weights = Weights::open(dir.path()).expect("opens");
    for (name, shape, named) in
        [("b.weight", [4, 3], "[3, 4], expected [4, 3]"), ("lm_head.weight", [1, 1], "lm_head.weight")]
    {
        let message = weights.read_f32(name, &shape).expect_err("refused").to_string();
        assert!(message.contains("model.safetensors") && message.contains(named), "{message}");
    }
}

#[test]
fn another_number_format_is_refused_by_name() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("model.safetensors");
    let header = br#"{"ids":{"dtype":"I64","shape":[1],"data_offsets":[0,8]}}"#;
    let file = [&(header.len() as u64).to_le_bytes()[..], header, &[0; 8]].concat();
    std::fs::write(&path, file).expect("written");
    let message =
        Weights::open(dir.path()).expect("opens").read_f32("ids", &[1]).expect_err("I64").to_string();
    assert!(message.contains("ids") && message.contains("I64"), "{message}");
}

#[test]
fn numbers_at_odd_offsets_are_read() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("model.safetensors");
    let header = br#"{"x":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}} "#;
    assert_eq!(header.len() % 4, 3);
    let file = [&(header.len() as u64).to_le_bytes()[..], header, &1.25f32.to_le_bytes()].concat();
    std::fs::write(&path, file).expect("written");
    let weights = Weights::open(dir.path()).expect("opens");
    assert_eq!(weights.read_f32("x", &[1]).expect("reads"), [1.25]);
}

#[test]
fn damaged_files_are_refused() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("model.safetensors");
    write_two(&path, Dtype::F32);
    let whole = std::fs::read(&path).expect("reads");
    for len in [0, 4, 8, 20, 200, whole.len() - 1] {
        std::fs::write(&path, &whole[..len]).expect("written");
        let message = Weights::open(dir.path()).expect_err("truncated").to_string();
        assert!(message.contains("model.safetensors") && message.contains("truncated"), "{len}: {message}");
    }
    std::fs::write(&path, [&whole[..], &[0]].concat()).expect("written");
    Weights::open(dir.path()).expect_err("one byte too many");
    std::fs::write(&path, "version https://git-lfs.github.com/spec/v1\noid sha256:0\n").expect("written");
    let message = Weights::open(dir.path()).expect_err("a pointer").to_string();
    assert!(message.contains("git lfs pull"), "{message}");
}

#[test]
fn a_folder_without_weights_says_what_was_looked_for() {
    let dir = tempfile::tempdir().expect("a folder");
    let message = Weights::open(dir.path()).expect_err("nothing there").to_string();
    assert!(message.contains("model.safetensors.index.json"), "{message}");
    std::fs::write(dir.path().join("pytorch_model.bin"), "").expect("written");
    let message = Weights::open(dir.path()).expect_err("pickled").to_string();
    assert!(message.contains("pytorch_model.bin"), "{message}");
}

#[test]
fn shards_are_joined_and_missing_ones_named() {
    let dir = tempfile::tempdir().expect("a folder");
    let tensor = |name, data| TensorView { name, shape: &[1], data };
    let write = |file: &str, t| write_safetensors(&dir.path().join(file), &[t], Dtype::F32).expect("written");
    write("one.safetensors", tensor("x", &[1.0]));
    write("two.safetensors", tensor("y", &[2.0]));
    let index = |map: &str| {
        let text = format!(r#"{{"metadata": {{}}, "weight_map": {map}}}"#);
        std::fs::write(dir.path().join("model.safetensors.index.json"), text).expect("written");
        Weights::open(dir.path())
    };
    let weights = index(r#"{"y": "two.safetensors", "x": "one.safetensors"}"#).expect("opens");
    assert_eq!(weights.names(), ["x", "y"]);
    assert_eq!(weights.read_f32("y", &[1]).expect("reads"), [2.0]);

    for (map, named) in [
        (r#"{"x": "three.safetensors"}"#, ["index.json", "three.safetensors"]),
        (r#"{"z": "one.safetensors"}"#, ["one.safetensors", "tensor z"]),
        (r#"{"x": "../one.safetensors"}"#, ["index.json", "tensor x"]),
        (r#"{"x": 1}"#, ["index.json", "tensor x"]),
        ("[]", ["index.json", "weight_map"]),
    ] {
        let message = index(map).expect_err("refused").to_string();
        assert!(named.iter().all(|n| message.contains(n)), "{map}: {message}");
    }
}

#[test]
fn real_folders_read() {
    let Some(parity) = crate::shared_data::shared("parity") else { return };
    for (folder, dtype, tied) in [
        ("qwen2_tied_f32", Dtype::F32, true),
        ("qwen3_untied_f32_sharded", Dtype::F32, false),
        ("llama3_untied_bf16", Dtype::Bf16, false),
    ] {
        let weights = Weights::open(&parity.join(folder)).expect("opens");
        assert_eq!(weights.contains("lm_head.weight"), !tied, "{folder}");
        assert_eq!(weights.dtype("model.embed_tokens.weight").expect("there"), dtype);
        let embedding = weights.read_f32("model.embed_tokens.weight", &[512, 64]).expect("reads");
        // Drawn with standard deviation 0.1 (initializer_range).
        let variance = embedding.iter().map(|x| f64::from(x * x)).sum::<f64>() / embedding.len() as f64;
        assert!((variance.sqrt() - 0.1).abs() < 0.002, "{folder}: {variance}");
    }
}
