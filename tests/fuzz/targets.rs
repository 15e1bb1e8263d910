//! What reads strangers' files, each with examples that it takes.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parquet::basic::{Compression, Encoding, GzipLevel, ZstdLevel};
use parquet::data_type::{ByteArray, ByteArrayType, DoubleType, Int64Type};
use parquet::file::properties::{WriterProperties, WriterVersion};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use rlt::checkpoint::{CheckpointStore, Keep};
use rlt::config::DataConfig;
use rlt::dataset::{RowWriter, question_of, read_records};
use rlt::evaluate::comparison::SavedEvaluation;
use rlt::prompts::{ChatText, PromptStyle};
use rlt::report::write_report;
use rlt::run_log::read_rows;
use rlt::worlds::task::find_task;
use rlt_grade::{
    SolutionTags, ThoughtRule, equivalent, grade_choice, grade_countdown, grade_math, grade_solution,
};
use rlt_model::Decoder;
use rlt_model::chat_template::ChatTemplate;
use rlt_model::config::ModelConfig;
use rlt_model::tokenizer::Tokenizer;
use serde_json::{Map, Value, json};

use super::scripted::write_random_model;

type Attempt = Box<dyn Fn(&[u8])>;

/// One reader of files.
pub struct Target {
    pub name: &'static str,
    /// Inputs that it takes.
    pub examples: Vec<Vec<u8>>,
    /// Words of the format.
    pub words: &'static [&'static str],
    /// Reads one input, and drops what comes of it.
    pub attempt: Attempt,
}

/// All targets, which work below `folder`.
pub fn targets(folder: &Path) -> Vec<Target> {
    let model = folder.join("model");
    fs::create_dir_all(&model).unwrap();
    write_random_model(&model, 64);
    let mut all: Vec<Target> = Vec::new();
    all.extend([config(folder, &model), tokenizer(folder, &model), tokenizer_config(folder, &model)]);
    all.extend([
        template(),
        safetensors(folder, &model),
        parquet(folder),
        lines(folder, "jsonl"),
        lines(folder, "csv"),
    ]);
    all.extend([task(folder), run_directory(folder), latex()]);
    all
}

const WORDS_OF_JSON: &[&str] =
    &["{", "}", "[", "]", ",", ":", "\"", "null", "1e999", "-", "\\u0000", "\\ud800", "true"];

/// A copy of the model's folder, of which one file is the input.
fn copy_of(model: &Path, folder: &Path, name: &str) -> PathBuf {
    let copy = folder.join(name);
    fs::create_dir_all(&copy).unwrap();
    for entry in fs::read_dir(model).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, copy.join(path.file_name().unwrap())).unwrap();
    }
    copy
}

fn config(folder: &Path, model: &Path) -> Target {
    let copy = copy_of(model, folder, "config");
    let text = fs::read_to_string(model.join("config.json")).unwrap();
    let mut examples = vec![text.clone().into_bytes()];
    for change in [
        json!({"rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}}),
        json!({"rope_parameters": {"rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0,
            "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64}}),
        json!({"use_sliding_window": true, "sliding_window": 8, "max_window_layers": 1, "layer_types": ["full_attention"]}),
        json!({"model_type": "llama", "attention_bias": false, "mlp_bias": false, "head_dim": 16}),
        json!({"model_type": "qwen3", "head_dim": 16}),
    ] {
        let mut config: Map<String, Value> = serde_json::from_str(&text).unwrap();
        config.extend(change.as_object().unwrap().clone());
        examples.push(serde_json::to_vec(&config).unwrap());
    }
    Target {
        name: "config",
        examples,
        words: WORDS_OF_JSON,
        attempt: Box::new(move |input| {
            fs::write(copy.join("config.json"), input).unwrap();
            if let Ok(config) = ModelConfig::from_dir(&copy) {
                drop(config.to_json());
                // The weights are those of another shape, mostly.
                drop(Decoder::load_frozen(&copy));
            }
        }),
    }
}

/// What is done with a tokenizer that could be read.
fn use_tokenizer(tokenizer: &Tokenizer) {
    let texts = ["", "a", " How many apples? 12+3=\u{301}\u{fdfa}\u{1f600}\n\n", &"long ".repeat(300)];
    for text in texts {
        if let Ok(encoding) = tokenizer.encode_with_offsets(text) {
            let decoded = tokenizer.decode(&encoding.ids);
            assert!(
                encoding.offsets.iter().all(|&(start, end)| start <= end && text.get(start..end).is_some())
            );
            drop(decoded);
        }
        drop(tokenizer.encode_inside(text));
    }
    drop(tokenizer.decode(&[0, 1, 5, 400, u32::MAX]));
    drop(tokenizer.token_bytes(7));
}

fn tokenizer(folder: &Path, model: &Path) -> Target {
    let copy = copy_of(model, folder, "tokenizer");
    let text = fs::read(model.join("tokenizer.json")).unwrap();
    let value: Value = serde_json::from_slice(&text).unwrap();
    let mut examples = vec![text];
    let replace = |from: Value, to: &str| json!({"type": "Replace", "pattern": from, "content": to});
    for (name, part) in [
        (
            "normalizer",
            json!({"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": "\u{2581}"}, replace(json!({"String": " "}), "\u{2581}")]}),
        ),
        (
            "normalizer",
            json!({"type": "Sequence", "normalizers": vec![replace(json!({"String": "a"}), "aa"); 40]}),
        ),
        ("normalizer", replace(json!({"Regex": "(x+)+y|a*"}), "xxxxxxxxxxxxxxxxxxxxxxxx")),
        ("normalizer", json!({"type": "NFKC"})),
        (
            "pre_tokenizer",
            json!({"type": "Metaspace", "replacement": "\u{2581}", "prepend_scheme": "always", "split": true}),
        ),
        (
            "pre_tokenizer",
            json!({"type": "Split", "pattern": {"Regex": "(?i:'s|'t)|[^\\r\\n\\p{L}]?\\p{L}+|\\s+(?!\\S)|\\s+"},
            "behavior": "Isolated", "invert": false}),
        ),
        (
            "decoder",
            json!({"type": "Sequence", "decoders": [{"type": "ByteFallback"}, {"type": "Fuse"},
            {"type": "Strip", "content": " ", "start": 1, "stop": 0}]}),
        ),
    ] {
        let mut changed = value.clone();
        changed[name] = part;
        examples.push(serde_json::to_vec(&changed).unwrap());
    }
    Target {
        name: "tokenizer",
        examples,
        words: WORDS_OF_JSON,
        attempt: Box::new(move |input| {
            fs::write(copy.join("tokenizer.json"), input).unwrap();
            if let Ok(tokenizer) = Tokenizer::from_dir(&copy) {
                use_tokenizer(&tokenizer);
            }
        }),
    }
}

fn tokenizer_config(folder: &Path, model: &Path) -> Target {
    let copy = copy_of(model, folder, "tokenizer_config");
    let example = json!({
        "bos_token": {"content": "<|im_start|>", "lstrip": false}, "eos_token": "<|im_end|>", "pad_token": null,
        "added_tokens_decoder": {"5": {"content": "<|im_end|>", "special": true, "normalized": false}},
        "additional_special_tokens": ["<|im_start|>"], "extra_special_tokens": {"image_token": "<image>"},
        "chat_template": [{"name": "default", "template": "{% for m in messages %}{{ m.role }}{{ m.content }}{% endfor %}"}],
    });
    Target {
        name: "tokenizer_config",
        examples: vec![
            fs::read(model.join("tokenizer_config.json")).unwrap_or_else(|_| b"{}".to_vec()),
            serde_json::to_vec(&example).unwrap(),
        ],
        words: WORDS_OF_JSON,
        attempt: Box::new(move |input| {
            fs::write(copy.join("tokenizer_config.json"), input).unwrap();
            if let Ok(chat) = ChatText::from_dir(&copy) {
                drop(chat.prompt("system", "user"));
                use_tokenizer(&chat.tokenizer);
            }
        }),
    }
}

fn template() -> Target {
    let examples = [
        "{%- for message in messages %}{{ '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}{%- endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}",
        "{% set ns = namespace(n=0, text='') %}{% for m in messages | reverse %}{% set ns.n = ns.n + 1 %}{% set ns.text = ns.text + m['content'].strip() %}{% endfor %}{{ ns.text }}{{ ns.n }}",
        "{%- macro show(x, depth=0) %}{% if x is mapping %}{% for k, v in x.items() %}{{ k }}{{ show(v, depth + 1) }}{% endfor %}{% else %}{{ x | tojson(indent=2) }}{% endif %}{% endmacro %}{{ show(messages[0]) }}{{ strftime_now('%d %b %Y') }}",
        "{% if messages[0].role == 'system' %}{% set loop_messages = messages[1:] %}{% else %}{% set loop_messages = messages %}{% endif %}{% for m in loop_messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles') }}{% endif %}{{ m.content | trim | upper | default('x', true) }}{% endfor %}{{ bos_token }}",
    ];
    Target {
        name: "template",
        examples: examples.map(|text| text.as_bytes().to_vec()).to_vec(),
        words: &[
            "{{",
            "}}",
            "{%",
            "%}",
            "{% for i in range(100000) %}",
            "{% endfor %}",
            " | join",
            " * 100000",
            "'x' * 10**9",
            ".ljust(10**12)",
            " | batch(10**9)",
            " | tojson(indent=10**11)",
            "'%099999d' % 1",
            " ~ ",
            "(",
            ")",
            "[",
            "]",
            "namespace()",
            "loop.index",
            ".split('')",
            ".replace('', 'xx')",
            "{% set x = x + x %}",
            "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
            "| map(attribute='x')",
            "9223372036854775807",
            "-",
            "**",
            "//",
            "%",
            "range(10**18)",
            "| list",
            "| sum",
            "| safe",
            "{% if ",
            "{% endif %}",
            "not ",
            "messages",
            "| reverse",
            "[::-1]",
            "dict(a=messages)",
        ],
        attempt: Box::new(|input| {
            let text = String::from_utf8_lossy(input);
            if let Ok(template) = ChatTemplate::from_source(&text, Map::new()) {
                let messages =
                    json!([{"role": "system", "content": "S"}, {"role": "user", "content": "a b\nc"}]);
                drop(template.render_json(&messages, true, &Map::new()));
            }
        }),
    }
}

fn safetensors(folder: &Path, model: &Path) -> Target {
    let copy = copy_of(model, folder, "safetensors");
    let bytes = fs::read(model.join("model.safetensors")).unwrap();
    Target {
        name: "safetensors",
        examples: vec![bytes[..bytes.len().min(6000)].to_vec(), bytes],
        words: &[
            "F32",
            "BF16",
            "F64",
            "\"dtype\":\"I8\"",
            "\"shape\":[0]",
            "[4294967296,4294967296]",
            "\"data_offsets\":[0,18446744073709551615]",
            "{",
            "}",
            "[",
            "]",
        ],
        attempt: Box::new(move |input| {
            fs::write(copy.join("model.safetensors"), input).unwrap();
            drop(Decoder::load_frozen(&copy));
        }),
    }
}

fn parquet(folder: &Path) -> Target {
    let path = folder.join("rows.parquet");
    let mut examples = Vec::new();
    // As the program writes them.
    let rows: Vec<Map<String, Value>> = (0..30)
        .map(|i| {
            let row = json!({"id": i, "question": format!("q{}", i % 3), "x": 0.5, "ok": i % 2 == 0, "tags": ["a", null],
            "messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a".repeat(i)}]});
            row.as_object().unwrap().clone()
        })
        .collect();
    let mut writer = RowWriter::<()>::begin(&path, "").unwrap();
    writer.append(&rows, ()).unwrap();
    writer.finish().unwrap();
    examples.push(fs::read(&path).unwrap());
    // As others do: versions, codecs, encodings, with dictionaries and without.
    let encodings = [Encoding::PLAIN, Encoding::DELTA_LENGTH_BYTE_ARRAY, Encoding::DELTA_BYTE_ARRAY];
    for (i, encoding) in encodings.into_iter().enumerate() {
        for packed in [
            Compression::UNCOMPRESSED,
            Compression::SNAPPY,
            Compression::GZIP(GzipLevel::default()),
            Compression::ZSTD(ZstdLevel::default()),
        ] {
            let version = if i == 1 { WriterVersion::PARQUET_1_0 } else { WriterVersion::PARQUET_2_0 };
            let properties = WriterProperties::builder()
                .set_writer_version(version)
                .set_compression(packed)
                .set_dictionary_enabled(packed == Compression::SNAPPY)
                .set_column_encoding("question".into(), encoding)
                .build();
            let schema = "message m { optional binary question (UTF8); optional double x; required int64 n;
                optional group list (LIST) { repeated group list { optional int64 element; } } }";
            let schema = Arc::new(parse_message_type(schema).unwrap());
            let mut file = Vec::new();
            let mut writer = SerializedFileWriter::new(&mut file, schema, Arc::new(properties)).unwrap();
            let mut group = writer.next_row_group().unwrap();
            let mut leaf = group.next_column().unwrap().unwrap();
            let texts = ["same start one", "same start two"].map(ByteArray::from);
            leaf.typed::<ByteArrayType>().write_batch(&texts, Some(&[1, 0, 1]), None).unwrap();
            leaf.close().unwrap();
            let mut leaf = group.next_column().unwrap().unwrap();
            leaf.typed::<DoubleType>().write_batch(&[1.5], Some(&[0, 1, 0]), None).unwrap();
            leaf.close().unwrap();
            let mut leaf = group.next_column().unwrap().unwrap();
            leaf.typed::<Int64Type>().write_batch(&[1, 2, 3], None, None).unwrap();
            leaf.close().unwrap();
            let mut leaf = group.next_column().unwrap().unwrap();
            leaf.typed::<Int64Type>().write_batch(&[7, 8], Some(&[3, 3, 1, 0]), Some(&[0, 1, 0, 0])).unwrap();
            leaf.close().unwrap();
            group.close().unwrap();
            writer.close().unwrap();
            examples.push(file);
        }
    }
    Target {
        name: "parquet",
        examples,
        words: &["PAR1", "\u{15}\u{0}", "question", "\u{1c}", "\u{19}"],
        attempt: Box::new(move |input| {
            fs::write(&path, input).unwrap();
            drop(read_records(&path, 0));
        }),
    }
}

fn lines(folder: &Path, kind: &'static str) -> Target {
    let path = folder.join(format!("lines.{kind}"));
    let examples: &[&str] = if kind == "csv" {
        &["question,solution\n\"a, \"\"b\"\"\nc\",d\ne,f\n", "\u{feff}q;r\r\n1;2\r\n"]
    } else {
        &[
            "{\"question\":\"q\",\"solution\":\"s\"}\n\n{\"question\":\"\\u00fc\",\"solution\":7}\n",
            "[{\"prompt\":\"q\",\"solution\":null},\n {\"question\":[\"q\"],\"solution\":[\"s\"]}]",
            "{\"messages\":[{\"role\":\"user\",\"content\":\"q\"},{\"role\":\"assistant\",\"content\":\"<think>t</think>\\n\\n<solution>s</solution>\"}]}\n",
            "{\"conversations\":[{\"from\":\"human\",\"value\":\"q\"},{\"from\":\"gpt\",\"value\":\"a\"}],\"completions\":[\"a\",\"b\"]}\n",
        ]
    };
    Target {
        name: if kind == "csv" { "csv" } else { "jsonl" },
        examples: examples.iter().map(|text| text.as_bytes().to_vec()).collect(),
        words: WORDS_OF_JSON,
        attempt: Box::new(move |input| {
            fs::write(&path, input).unwrap();
            let data = DataConfig::default();
            for record in read_records(&path, 0).unwrap_or_default() {
                drop(question_of(record.clone(), &data));
                drop(rlt::dataset::traces_of(&record, &data, PromptStyle::stratos()));
            }
        }),
    }
}

fn task(folder: &Path) -> Target {
    let path = folder.join("task.toml");
    let rows = "{\"problem\":\"p\",\"answer\":\"4\",\"nums\":[1,2],\"target\":3,\"a\":\"x\",\"b\":\"y\"}\n";
    fs::write(folder.join("task.jsonl"), rows).unwrap();
    let examples = [
        "name = \"mine\"\ngrader = \"math\"\ntemplate = \"Answer in \\\\boxed{}. {problem}\"\nanswer = \"answer\"\ndata = \"task.jsonl\"\n",
        "name = \"c\"\ngrader = \"countdown\"\ntemplate = \"{nums} {target}\"\nnumbers = \"nums\"\ntarget = \"target\"\ndata = \"task.jsonl\"\n",
        "name = \"d\"\ngrader = \"choice\"\ntemplate = \"{problem} {choice A} {choice B}\"\nchoices = [\"a\", \"b\"]\nthought = \"remove\"\ndata = \"task.jsonl\"\n",
    ];
    Target {
        name: "task",
        examples: examples.map(|text| text.as_bytes().to_vec()).to_vec(),
        words: &[
            "{",
            "}",
            "{{",
            "\"",
            "\"\"\"",
            "[",
            "]",
            "=",
            "\n",
            "choices",
            "grader",
            "{choice Z}",
            "data = \"..\"",
            "name = \"../x\"",
            "inf",
            "1979-05-27",
        ],
        attempt: Box::new(move |input| {
            fs::write(&path, input).unwrap();
            drop(find_task(path.to_str().unwrap(), None, &DataConfig::default(), 1, 0));
        }),
    }
}

/// The files of a run that its readers look for, each in its turn the input: the first byte says which.
fn run_directory(folder: &Path) -> Target {
    const FILES: [&str; 8] = [
        "metrics.jsonl",
        "config.toml",
        "eval.json",
        "demo.json",
        "samples/step-000001.jsonl",
        "eval_questions.jsonl",
        "checkpoints/step-000001/manifest.json",
        "failed/batch.json",
    ];
    let metrics = "{\"step\":1,\"loss\":1.5,\"reward_mean\":-0.5,\"wall_s\":1.0}\n{\"step\":2,\"loss\":null,\"spikes\":[\"loss\"]}\n";
    let contents = [
        metrics,
        "seed = 1\n[grpo]\nsteps = 2\n",
        "{\"model\":\"m\",\"task\":\"t\",\"accuracy\":0.5,\"interval\":{\"low\":0.1,\"high\":0.9},\"questions\":2}",
        "{\"training_dir\":\".\",\"students\":[],\"stages\":[]}",
        "{\"step\":1,\"question\":\"q\",\"completion\":\"c\",\"reward\":1.0,\"think_tokens\":[\"a\"],\"d_j\":[0.5]}\n",
        "{\"index\":0,\"question\":\"q\",\"gold\":\"4\",\"samples\":[{\"text\":\"4\",\"correct\":true}]}\n",
        "{\"step\":1,\"files\":[{\"name\":\"state.json\",\"bytes\":10,\"crc32c\":1}]}",
        "{\"step\":1,\"groups\":[]}",
    ];
    let examples = contents
        .iter()
        .enumerate()
        .map(|(i, content)| [&[i as u8][..], content.as_bytes()].concat())
        .collect();
    let run = folder.join("run");
    Target {
        name: "run_directory",
        examples,
        words: WORDS_OF_JSON,
        attempt: Box::new(move |input| {
            drop(fs::remove_dir_all(&run));
            for name in ["samples", "checkpoints/step-000001", "failed"] {
                fs::create_dir_all(run.join(name)).unwrap();
            }
            fs::write(run.join("metrics.jsonl"), metrics).unwrap();
            let (which, content) = input.split_first().unwrap_or((&0, &[]));
            let path = run.join(FILES[*which as usize % FILES.len()]);
            fs::write(&path, content).unwrap();
            drop(write_report(&run));
            drop(read_rows(&path));
            drop(SavedEvaluation::read(&path));
            drop(CheckpointStore::new(run.join("checkpoints"), Keep::last(2)).latest_good());
        }),
    }
}

fn latex() -> Target {
    let examples = [
        "\\frac{1}{2}",
        "\\boxed{\\sqrt[3]{27} + 2^{10}}",
        "x \\in (-\\infty, 3] \\cup [5, \\infty)",
        "\\begin{pmatrix} 1 & 2 \\\\ 3 & 4 \\end{pmatrix}",
        "The answer is \\boxed{1{,}234.5\\text{ cm}^2}.",
        "12\\%",
        "0.\\overline{3}",
        "\\{1, 2, 3\\}",
        "(1, -2, \\pi)",
        "3 \\times 10^{-5}",
        "2x^2 - 3x + 1 = 0",
        "\\left\\lfloor \\frac{7}{2} \\right\\rfloor",
        "\\binom{10}{3}",
        "5!",
        "\\log_2 8",
        "a \\pm b",
        "(3 + 4) * 2 - 1",
        "<think>no</think> Therefore, B.",
        "1e400",
        "\\dfrac12",
    ];
    Target {
        name: "latex",
        examples: examples.iter().map(|text| text.as_bytes().to_vec()).collect(),
        words: &[
            "\\frac",
            "{",
            "}",
            "^",
            "_",
            "\\boxed{",
            "!",
            "(",
            ")",
            "[",
            "]",
            "\\sqrt",
            "^{99999}",
            "9999999999",
            "e999",
            "\\left(",
            "\\right)",
            ",",
            "\\text{",
            "$",
            "\\cup",
            "\\infty",
            "-",
            "+",
            "*",
            "/",
            "^{-1}",
            "\\overline{",
            "\\sum",
            "x",
            "\\pi",
            "%",
            "\\\\",
            "&",
            "\\pm",
            ".",
            "\u{2212}",
            "\u{b2}",
            "=",
            "\\le",
            "or",
            "\\sin",
            "\\binom",
        ],
        attempt: Box::new(move |input| {
            let text = String::from_utf8_lossy(input);
            let other = examples[input.len() % examples.len()];
            for (gold, answer) in [(other, &*text), (&*text, other), (&*text, &*text)] {
                drop(equivalent(gold, answer));
                drop(grade_math(answer, gold, ThoughtRule::Remove));
            }
            drop(grade_choice(&text, "B", ThoughtRule::Keep));
            drop(grade_countdown(&text, &[3, 4, 2, 1], 13, ThoughtRule::Keep));
            let (tags, open) = (SolutionTags::default(), "<|begin_of_thought|>");
            let SolutionTags { end_of_thought, begin_of_solution, end_of_solution } = tags;
            let sections = format!("{open}{text}{end_of_thought}{begin_of_solution}{text}{end_of_solution}");
            drop(grade_solution(&sections, &text, &tags));
        }),
    }
}
