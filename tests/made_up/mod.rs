//! Run directories with plausible, made-up content.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use rlt::report::{DemoSummary, Explanations, Sample, Stage, Student};
use rlt::run_log::RunLog;
use serde_json::{Map, Value, json};

/// A small generator (Knuth's MMIX constants): the same numbers everywhere.
struct Dice(u64);

impl Dice {
    /// Uniform in 0 to 1.
    fn roll(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Roughly normal with standard deviation 1.
    fn noise(&mut self) -> f64 {
        ((0..6).map(|_| self.roll()).sum::<f64>() - 3.0) * 1.4
    }
}

const QUESTIONS: [(&str, &str); 4] = [
    (
        "Mira has 14 apples. She buys 9 apples, gives 6 apples to Tom, and then doubles what is left. How many apples does Mira have?",
        "34",
    ),
    (
        "A jar holds 52 beans. Ana takes 17 beans, puts back 8 beans, and then half of the beans are cooked. How many beans are cooked?",
        "21 with 1 left over",
    ),
    (
        "Leo reads 12 pages on Monday, 3 times as many on Tuesday, and 5 fewer than that on Wednesday. How many pages in all?",
        "79",
    ),
    ("There are 40 birds. 15 fly away, 7 come back, 12 fly away. How many birds are there?", "20"),
];

const BEFORE: [&str; 4] = [
    "\n\nThe answer is 34. Mira has 14 apples and at the end there are 34 apples, so we get 34.\n\n",
    "\n\nWe have 52 beans. 52 - 17 = 35.\n\nHalf of the beans: 21 with 1 left over.\n\n",
    "\n\nLeo reads a lot of pages. He reads on Monday, and on Tuesday, and on Wednesday. Let me think. The pages on Monday are pages. 79.\n\n",
    "\n\n40 - 15 = 25.\n\n25 + 7 = 33.\n\nSo 20.\n\n",
];

const AFTER: [&str; 4] = [
    "\n\nMira starts with 14 apples.\n\nShe buys 9: 14 + 9 = 23.\n\nShe gives 6 away: 23 - 6 = 17.\n\nShe doubles what is left: 17 + 17 = 34.\n\n",
    "\n\nThe jar holds 52 beans.\n\nAna takes 17: 52 - 17 = 35.\n\nShe puts back 8: 35 + 8 = 43.\n\nHalf of 43 is 21 with 1 left over.\n\n",
    "\n\nMonday: 12 pages.\n\nTuesday: 3 × 12 = 36 pages.\n\nWednesday: 36 - 5 = 31 pages.\n\nIn all: 12 + 36 + 31 = 79.\n\n",
    "\n\nStart with 40 birds.\n\n40 - 15 = 25.\n\n25 + 7 = 32.\n\n32 - 12 = 20.\n\n",
];

/// Splits as a tokenizer might: words with their leading space, digits alone, runs of newlines.
fn pieces(text: &str) -> Vec<String> {
    let mut pieces: Vec<String> = Vec::new();
    for c in text.chars() {
        let joins = pieces.last().is_some_and(|last: &String| {
            let before = last.chars().last().unwrap();
            (c == '\n' && before == '\n') || (c.is_alphabetic() && (before.is_alphabetic() || last == " "))
        });
        if joins { pieces.last_mut().unwrap().push(c) } else { pieces.push(c.to_string()) }
    }
    pieces
}

fn sample(dice: &mut Dice, step: u64, index: usize, text: &str, quality: f64) -> Sample {
    let (question, solution) = QUESTIONS[index % QUESTIONS.len()];
    let think_tokens = pieces(text);
    let leap = text.find(solution).map_or(0, |at| pieces(&text[..at]).len());
    let mut teacher_logprobs = Vec::new();
    let mut student_logprobs = Vec::new();
    for position in 0..think_tokens.len() {
        let teacher = -dice.roll().powi(4) * 0.8;
        // Words that only somebody who knows the solution would write cost most where they come early.
        let digits = think_tokens[position].chars().all(char::is_numeric);
        let surprise = if digits && position.abs_diff(leap) < 2 { 5.0 * (1.0 - quality) } else { 0.0 };
        let gap = dice.noise() * 0.25 + surprise + 0.12 * (1.0 - quality) + dice.roll().powi(8) * 1.5;
        teacher_logprobs.push(teacher);
        student_logprobs.push((teacher - gap).min(-0.001));
    }
    let d_j: Vec<f64> = teacher_logprobs.iter().zip(&student_logprobs).map(|(t, s)| t - s).collect();
    let solution_tokens = pieces(solution);
    let solution_logprobs: Vec<f64> = solution_tokens
        .iter()
        .map(|_| -dice.roll() * 0.15 - (1.0 - quality) * dice.roll() * 6.0 - 0.001)
        .collect();
    let mean = |v: &[f64]| v.iter().sum::<f64>() / v.len() as f64;
    let max = d_j.iter().copied().fold(f64::MIN, f64::max);
    let min = solution_logprobs.iter().copied().fold(0.0, f64::min);
    let reward = mean(&solution_logprobs) + 0.01 * min - 3.0 * (mean(&d_j) + 0.01 * max);
    let parts = json!({"solution_logprob_mean": mean(&solution_logprobs), "solution_logprob_min": min,
        "kl_mean": mean(&d_j), "kl_max": max, "format_penalty": 0.0, "n_think": think_tokens.len(),
        "n_solution": solution_tokens.len(), "n_boundary": 0, "status": "ok"});
    Sample {
        step,
        question: question.into(),
        solution: solution.into(),
        completion: format!("{text}<|end_of_explanation|>"),
        explanation: text.into(),
        finish: "stop".into(),
        reward: Some(reward),
        advantage: Some(dice.noise()),
        parts: parts.as_object().unwrap().clone(),
        think_tokens,
        d_j,
        teacher_logprobs,
        student_logprobs,
        solution_tokens,
        solution_logprobs,
    }
}

fn samples(dice: &mut Dice, step: u64, texts: &[&str], quality: f64) -> Vec<Sample> {
    texts.iter().enumerate().map(|(index, text)| sample(dice, step, index, text, quality)).collect()
}

fn values(samples: &[Sample]) -> Vec<Value> {
    samples.iter().map(|sample| serde_json::to_value(sample).unwrap()).collect()
}

fn object(value: &Value) -> Map<String, Value> {
    value.as_object().unwrap().clone()
}

/// `runs/demo` as `rlt demo` leaves it: `demo.json`, and the RL stage in a folder of its own.
pub fn demo(dir: &Path) {
    let dice = &mut Dice(1);
    rlt_training(&dir.join("teacher-rl"));
    let student = |name: &str, label: &str, accuracy, low, high, emphasis| Student {
        name: name.into(),
        label: label.into(),
        accuracy,
        low,
        high,
        n: 600,
        emphasis,
    };
    let stage = |name: &str, seconds| Stage { name: name.into(), seconds };
    let explained = |samples| Explanations { label: String::new(), samples };
    let summary = DemoSummary {
        world: "Here the questions are short stories about counting, invented by a seeded generator. A \
                student with a million parameters can do every single step but not a whole story at once."
            .into(),
        seeds: vec![7],
        training_dir: "teacher-rl".into(),
        stages: vec![
            stage("Base model: a textbook of single steps", 96.0),
            stage("Teacher warm-up: fine-tuning on mixed explanations", 31.0),
            stage("Teacher: GRPO with the RLT reward", 118.0),
            stage("Traces before and after", 14.0),
            stage("Students distilled from each", 52.0),
            stage("Evaluation on held-out questions", 9.5),
        ],
        students: vec![
            student("base", "Base student", 0.242, 0.209, 0.278, false),
            student("pre_rl", "Student of the teacher before RL", 0.33, 0.293, 0.369, false),
            student("rlt", "Student of the RLT-trained teacher", 0.84, 0.81, 0.868, true),
        ],
        before: explained(samples(dice, 0, &BEFORE, 0.1)),
        after: explained(samples(dice, 0, &AFTER, 0.95)),
    };
    fs::write(dir.join("demo.json"), serde_json::to_vec_pretty(&summary).unwrap()).unwrap();
}

/// A run of `rlt train` with the RLT reward, 40 steps.
pub fn rlt_training(dir: &Path) {
    let dice = &mut Dice(2);
    let mut log = RunLog::create_or_resume(dir, None).unwrap();
    let config = "name = \"tale-teller\"\nseed = 7\n\n[model]\npath = \"models/base\"\nstudent = \"models/student\"\n\n[grpo]\nsteps = 40\n";
    fs::write(dir.join("config.toml"), config).unwrap();
    for step in 1..=40u64 {
        let progress = 1.0 - (-(step as f64) / 11.0).exp();
        let r_ss = -2.6 + 2.3 * progress + 0.16 * dice.noise();
        let r_kl = 0.62 - 0.45 * progress + 0.03 * dice.noise();
        let reward = r_ss - 3.0 * r_kl;
        let spread = 1.3 - 0.7 * progress;
        let row = json!({"wall_s": step as f64 * 2.95, "loss": 0.02 * dice.noise(), "reward_mean": reward,
            "reward_std": spread, "reward_min": reward - 30.0 * (1.1 - progress) * dice.roll() - 3.0,
            "reward_max": (reward + 1.2 * spread).min(-0.05), "reward_median": reward + 0.1,
            "reward_q25": reward - 0.7 * spread, "reward_q75": (reward + 0.6 * spread).min(-0.1), "r_ss_mean": r_ss,
            "r_kl_mean": r_kl, "solution_logprob_mean": r_ss + 0.02, "kl_mean": r_kl - 0.03, "kl_max": 3.1,
            "format_rate": (0.86 + 0.14 * progress + 0.01 * dice.noise()).min(1.0), "unscorable": 0,
            "think_tokens_mean": 34.0 + 22.0 * progress + 1.5 * dice.noise(), "completion_tokens_mean": 57.0,
            "solution_overlap_mean": (0.09 - 0.05 * progress + 0.006 * dice.noise()).max(0.0),
            "repeated_ngram_share_mean": (0.02 + 0.03 * progress + 0.004 * dice.noise()).max(0.0),
            "explanation_value_mean": 0.4 + 1.9 * progress + 0.1 * dice.noise(),
            "kl_to_reference": 0.021 * step as f64 / 40.0 * (1.0 + 0.1 * dice.noise()), "zero_variance_groups": 0,
            "learning_rate": 3e-4 * (step as f64 / 5.0).min(1.0), "grad_norm": 0.9 + 0.2 * dice.noise(),
            "tokens_per_s": 5200.0 + 90.0 * dice.noise()});
        log.log(step, &object(&row)).unwrap();
        if step == 1 || step % 10 == 0 {
            let texts = if step < 20 { &BEFORE } else { &AFTER };
            log.samples(step, &values(&samples(dice, step, texts, progress))).unwrap();
        }
    }
}

/// A run of `rlt sft`, 1,200 steps.
pub fn sft(dir: &Path) {
    let dice = &mut Dice(3);
    let mut log = RunLog::create_or_resume(dir, None).unwrap();
    for step in 1..=1200u64 {
        let progress = step as f64 / 1200.0;
        let row = json!({"wall_s": step as f64 * 0.11, "loss": 0.4 + 2.8 * (-9.0 * progress).exp() + 0.03 * dice.noise(),
            "learning_rate": 1e-3 * (0.5 + 0.5 * (std::f64::consts::PI * progress).cos()), "grad_norm": 0.5 + 0.08 * dice.noise(),
            "tokens": 2048, "tokens_per_s": 18_200.0, "epoch": 3.0 * progress});
        log.log(step, &object(&row)).unwrap();
    }
}

/// A run of `rlt train` with the correctness reward: samples without a ledger.
pub fn correctness(dir: &Path) {
    let dice = &mut Dice(4);
    let mut log = RunLog::create_or_resume(dir, None).unwrap();
    for step in 1..=30u64 {
        let reward = -0.8 + 1.4 * step as f64 / 30.0 + 0.1 * dice.noise();
        let row = json!({"wall_s": step as f64, "loss": 0.0, "reward_mean": reward, "reward_min": -1.0, "reward_max": 1.0,
            "reward_q25": -0.5, "reward_q75": 1.0, "format_rate": 0.7, "completion_tokens_mean": 120.0,
            "kl_to_reference": 0.001 * step as f64, "learning_rate": 1e-6, "grad_norm": 1.0});
        log.log(step, &object(&row)).unwrap();
        if step == 1 || step == 30 {
            let completion = "<|begin_of_thought|>\n\n14 + 9 = 23\n\n<|end_of_thought|>\n\n34";
            let sample = json!({"step": step, "question": QUESTIONS[0].0, "solution": "34", "completion": completion,
                "finish": if step == 1 { "length" } else { "stop" }, "reward": 1.0, "advantage": 0.4, "parts": {"status": if step == 1 { "empty thought" } else { "ok" }}});
            log.samples(step, &[sample]).unwrap();
        }
    }
}

/// Two evaluations of the same benchmark.
pub fn evaluations(dir: &Path) {
    for (name, model, accuracy) in
        [("eval.json", "runs/a/model", 0.31), ("eval-tuned.json", "runs/b/model", 0.62)]
    {
        let eval = json!({"model": model, "task": "register machines", "split": "held-out", "seed": 1, "n_questions": 500,
            "n_samples": 4, "accuracy": accuracy, "low": accuracy - 0.04, "high": accuracy + 0.04, "format_rate": 0.97,
            "mean_tokens": 82.4, "truncated_rate": 0.01, "per_question_file": "eval.jsonl"});
        fs::write(dir.join(name), eval.to_string()).unwrap();
    }
}

/// Every text that a user or a model can choose tries to break out of the page.
pub fn hostile(dir: &Path) {
    const ATTACK: &str = "</script><img src=x onerror=alert(1)>\" onmouseover=\"alert(1)' {{ 7*7 }} {% raw %} &amp; ]]> <b>bold";
    let mut hostile = sample(&mut Dice(5), 1, 0, BEFORE[0], 0.5);
    hostile.question = ATTACK.into();
    hostile.solution = ATTACK.into();
    hostile.finish = ATTACK.into();
    hostile.think_tokens = vec![ATTACK.into(), "\u{202e}\t\r\n".into(), "<".into(), "script>".into()];
    hostile.solution_tokens = vec![ATTACK.into(), ATTACK.into()];
    hostile.parts.insert("status".into(), ATTACK.into());
    let plain = Sample { think_tokens: Vec::new(), explanation: ATTACK.into(), ..hostile.clone() };
    let summary = DemoSummary {
        world: ATTACK.into(),
        stages: vec![Stage { name: ATTACK.into(), seconds: 1.0 }],
        students: vec![Student { label: ATTACK.into(), accuracy: 0.5, high: 0.6, ..Student::default() }],
        before: Explanations { label: ATTACK.into(), samples: vec![hostile.clone(), plain] },
        after: Explanations { label: ATTACK.into(), samples: vec![hostile] },
        ..DemoSummary::default()
    };
    fs::write(dir.join("demo.json"), serde_json::to_vec(&summary).unwrap()).unwrap();
    let eval =
        json!({"model": ATTACK, "task": ATTACK, "split": ATTACK, "accuracy": 0.5, "low": 0.4, "high": 0.6});
    fs::write(dir.join("eval.json"), eval.to_string()).unwrap();
    let mut config = String::from("name = ");
    let _ = writeln!(config, "{}", Value::from(ATTACK));
    fs::write(dir.join("config.toml"), config).unwrap();
}
