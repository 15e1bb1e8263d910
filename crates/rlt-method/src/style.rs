//! Wording, tags and white space of the two formats: data, resolved from `[prompts]`.

use std::path::Path;
use std::sync::LazyLock;

use rlt_files::MOST_SETTINGS;

use crate::config::PromptsConfig;
use crate::error::{Error, Result};

/// A style in which every part is known.
///
/// Teacher: `begin_of_solution` s `end_of_solution` `delimiter` `begin_of_explanation` `padding` | text,
/// ending in `end_of_explanation`. Student: `begin_of_thought` `padding` thought `end_of_thought`
/// `delimiter` `begin_of_solution` s `end_of_solution`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PromptStyle {
    /// The teacher's system prompt; empty for none.
    pub teacher_system: String,
    /// The student's system prompt; empty for none.
    pub student_system: String,
    /// Text between two tagged sections.
    pub delimiter: String,
    /// Text just inside the thought's and the explanation's tags.
    pub padding: String,
    /// Opens the student's thought.
    pub begin_of_thought: String,
    /// Closes the student's thought.
    pub end_of_thought: String,
    /// Opens the solution; empty with [`Self::end_of_solution`] where it is what follows the thought.
    pub begin_of_solution: String,
    /// Closes the solution.
    pub end_of_solution: String,
    /// Opens the teacher's explanation.
    pub begin_of_explanation: String,
    /// Closes the teacher's explanation.
    pub end_of_explanation: String,
}

/// The built-in styles by name; the first is the default.
static BUILT_IN: LazyLock<[(&str, PromptStyle); 3]> = LazyLock::new(|| {
    [
        ("stratos", include_str!("style/stratos.toml")),
        ("r1", include_str!("style/r1.toml")),
        ("think", include_str!("style/think.toml")),
    ]
    .map(|(name, text)| {
        let parts = toml::from_str(text).expect("a built-in style is valid TOML");
        (name, complete(&parts).expect("a built-in style has every part"))
    })
});

impl PromptStyle {
    /// The Bespoke-Stratos style, the default.
    pub fn stratos() -> &'static Self {
        &BUILT_IN[0].1
    }

    /// Every built-in style.
    pub fn built_in() -> impl Iterator<Item = &'static Self> {
        BUILT_IN.iter().map(|(_, style)| style)
    }

    /// The named style (or the file `prompts.style` points to, itself resting on the style it names),
    /// with the parts that `prompts` replaces.
    ///
    /// # Errors
    /// [`Error::Usage`] for an unknown style and an empty tag; [`Error::Io`] and [`Error::File`] for a style
    /// file that cannot be read.
    pub fn resolve(prompts: &PromptsConfig) -> Result<Self> {
        let mut style = match built_in(&prompts.style) {
            Some(style) => style.clone(),
            None => from_file(&prompts.style)?,
        };
        style.replace(prompts);
        style.check()?;
        Ok(style)
    }

    /// The six tags.
    pub fn tags(&self) -> [&str; 6] {
        [
            &self.begin_of_thought,
            &self.end_of_thought,
            &self.begin_of_solution,
            &self.end_of_solution,
            &self.begin_of_explanation,
            &self.end_of_explanation,
        ]
    }

    /// `completion` up to the explanation end tag, and whether that tag is there.
    pub fn split_explanation<'a>(&self, completion: &'a str) -> (&'a str, bool) {
        match completion.split_once(&self.end_of_explanation) {
            Some((explanation, _)) => (explanation, true),
            None => (completion, false),
        }
    }

    /// A whole thought as the completion a teacher would write for it: without the leading padding (the
    /// prompt has it), with the trailing one, closed by the end tag.
    pub fn close_explanation(&self, thought: &str) -> String {
        let thought = thought.strip_prefix(&self.padding).unwrap_or(thought);
        let body = thought.strip_suffix(&self.padding).unwrap_or(thought);
        format!("{body}{}{}", self.padding, self.end_of_explanation)
    }

    /// Thought and solution of a student's completion that consists of exactly these two sections, each
    /// tag once, nothing but white space around them; `None` otherwise.
    pub fn split_answer<'a>(&self, completion: &'a str) -> Option<(&'a str, &'a str)> {
        let rest = completion.trim().strip_prefix(&self.begin_of_thought)?;
        let (thought, rest) = rest.split_once(&self.end_of_thought)?;
        let rest = rest.trim_start().strip_prefix(&self.begin_of_solution)?;
        let (solution, rest) = match self.end_of_solution.as_str() {
            "" => (rest, ""),
            tag => rest.split_once(tag)?,
        };
        let tags =
            [&self.begin_of_thought, &self.end_of_thought, &self.begin_of_solution, &self.end_of_solution];
        let tagged = |text: &str| tags.iter().any(|tag| !tag.is_empty() && text.contains(tag.as_str()));
        let whole = rest.is_empty() && (!solution.is_empty() || !self.end_of_solution.is_empty());
        (whole && !tagged(thought) && !tagged(solution)).then_some((thought, solution))
    }

    /// The first tag of this format that stands inside an explanation (which ends before its own end tag): in a
    /// student's sequence it would end the thought, or open the solution, where neither is.
    pub fn tag_in<'a>(&'a self, explanation: &str) -> Option<&'a str> {
        let tags = self.tags().into_iter().filter(|tag| !tag.is_empty());
        tags.filter_map(|tag| Some((explanation.find(tag)?, tag))).min().map(|(_, tag)| tag)
    }

    fn replace(&mut self, prompts: &PromptsConfig) {
        for (part, replacement) in self.parts_mut().into_iter().zip(parts(prompts)) {
            if let (_, Some(text)) = replacement {
                part.clone_from(text);
            }
        }
    }

    fn parts_mut(&mut self) -> [&mut String; 10] {
        [
            &mut self.teacher_system,
            &mut self.student_system,
            &mut self.delimiter,
            &mut self.padding,
            &mut self.begin_of_thought,
            &mut self.end_of_thought,
            &mut self.begin_of_solution,
            &mut self.end_of_solution,
            &mut self.begin_of_explanation,
            &mut self.end_of_explanation,
        ]
    }

    fn check(&mut self) -> Result<()> {
        let names = parts(&PromptsConfig::default()).map(|(name, _)| name);
        let no_solution_tags = self.begin_of_solution.is_empty() && self.end_of_solution.is_empty();
        for (part, name) in self.parts_mut().into_iter().zip(names).skip(4) {
            let may_be_empty = no_solution_tags && name.ends_with("_of_solution");
            if part.trim().is_empty() && !may_be_empty {
                return Err(Error::Usage(format!(
                    "prompts.{name} is empty; a tag needs text to be found by"
                )));
            }
        }
        Ok(())
    }
}

/// The replaceable parts with their keys, in the order of [`PromptStyle::parts_mut`]: the tags last.
fn parts(prompts: &PromptsConfig) -> [(&'static str, Option<&String>); 10] {
    [
        ("teacher_system", prompts.teacher_system.as_ref()),
        ("student_system", prompts.student_system.as_ref()),
        ("delimiter", prompts.delimiter.as_ref()),
        ("padding", prompts.padding.as_ref()),
        ("begin_of_thought", prompts.begin_of_thought.as_ref()),
        ("end_of_thought", prompts.end_of_thought.as_ref()),
        ("begin_of_solution", prompts.begin_of_solution.as_ref()),
        ("end_of_solution", prompts.end_of_solution.as_ref()),
        ("begin_of_explanation", prompts.begin_of_explanation.as_ref()),
        ("end_of_explanation", prompts.end_of_explanation.as_ref()),
    ]
}

/// A style from parts that are all given.
fn complete(prompts: &PromptsConfig) -> Option<PromptStyle> {
    let [
        teacher_system,
        student_system,
        delimiter,
        padding,
        begin_of_thought,
        end_of_thought,
        begin_of_solution,
        end_of_solution,
        begin_of_explanation,
        end_of_explanation,
    ] = parts(prompts).map(|(_, text)| text.cloned());
    Some(PromptStyle {
        teacher_system: teacher_system?,
        student_system: student_system?,
        delimiter: delimiter?,
        padding: padding?,
        begin_of_thought: begin_of_thought?,
        end_of_thought: end_of_thought?,
        begin_of_solution: begin_of_solution?,
        end_of_solution: end_of_solution?,
        begin_of_explanation: begin_of_explanation?,
        end_of_explanation: end_of_explanation?,
    })
}

fn built_in(name: &str) -> Option<&'static PromptStyle> {
    if name.is_empty() {
        return Some(PromptStyle::stratos());
    }
    BUILT_IN.iter().find(|(known, _)| *known == name).map(|(_, style)| style)
}

fn from_file(name: &str) -> Result<PromptStyle> {
    let path = Path::new(name);
    let known = || BUILT_IN.each_ref().map(|(known, _)| format!("`{known}`")).join(", ");
    let text = rlt_files::read_text(path, MOST_SETTINGS).map_err(|source| {
        if source.kind() == std::io::ErrorKind::NotFound {
            Error::Usage(format!("prompts.style `{name}` is neither {} nor a file", known()))
        } else {
            Error::Io { path: path.to_path_buf(), source }
        }
    })?;
    let file = |what: String| Error::File { path: path.to_path_buf(), what };
    let parts: PromptsConfig = toml::from_str(&text).map_err(|e| file(e.to_string()))?;
    let mut style = built_in(&parts.style)
        .ok_or_else(|| file(format!("its own style must be one of {}", known())))?
        .clone();
    style.replace(&parts);
    Ok(style)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn config(toml: &str) -> PromptsConfig {
        toml::from_str(toml).unwrap()
    }

    #[test]
    fn built_in_styles_are_whole_and_name_their_own_tags() {
        for style in PromptStyle::built_in() {
            for tag in [&style.begin_of_solution, &style.end_of_solution, &style.end_of_explanation] {
                assert!(style.teacher_system.contains(tag.as_str()));
            }
            for tag in [&style.begin_of_thought, &style.end_of_thought, &style.end_of_solution] {
                assert!(style.student_system.contains(tag.as_str()));
            }
            assert!(!style.teacher_system.contains('\n'), "one paragraph");
        }
        assert_eq!(&PromptStyle::resolve(&PromptsConfig::default()).unwrap(), PromptStyle::stratos());
    }

    #[test]
    fn parts_replace_a_file_and_a_file_its_base() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("mine.toml");
        fs::write(&path, "style = \"r1\"\nstudent_system = \"S\"\npadding = \"\"\n").unwrap();
        let prompts = PromptsConfig {
            style: path.to_string_lossy().into_owned(),
            student_system: Some("T".into()),
            ..PromptsConfig::default()
        };
        let style = PromptStyle::resolve(&prompts).unwrap();
        assert_eq!(style.student_system, "T");
        assert_eq!((style.padding.as_str(), style.begin_of_thought.as_str()), ("", "<think>"));
    }

    #[test]
    fn wrong_styles_say_what_is_wrong() {
        let message = |toml: &str| PromptStyle::resolve(&config(toml)).unwrap_err().to_string();
        assert_eq!(
            message("style = \"r2\""),
            "prompts.style `r2` is neither `stratos`, `r1`, `think` nor a file"
        );
        assert!(message("end_of_thought = \" \"").starts_with("prompts.end_of_thought is empty"));
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("bad.toml");
        fs::write(&path, "teacher = \"x\"\n").unwrap();
        assert!(
            message(&format!("style = {:?}", path.to_str().unwrap())).contains("unknown field `teacher`")
        );
    }

    #[test]
    fn explanations_are_split_and_closed() {
        let style = PromptStyle::stratos();
        assert_eq!(
            style.split_explanation("a\n\n<|end_of_explanation|>b<|end_of_explanation|>"),
            ("a\n\n", true)
        );
        assert_eq!(style.split_explanation("a <|end_of"), ("a <|end_of", false));
        assert_eq!(style.close_explanation("\n\na\n\n"), style.close_explanation("a"));
        assert_eq!(style.close_explanation("a"), "a\n\n<|end_of_explanation|>");
    }

    #[test]
    fn an_answer_is_exactly_two_sections() {
        let split = |text| PromptStyle::built_in().nth(1).unwrap().split_answer(text);
        assert_eq!(split("<think>a</think>\n\n<solution>4</solution>\n"), Some(("a", "4")));
        for wrong in [
            "a</think><solution>4</solution>",
            "<think>a<solution>4</solution>",
            "<think>a</think><solution>4",
            "<think>a</think> so <solution>4</solution>",
            "<think>a</think><solution>4</solution> and more",
            "<think>a<think></think><solution>4</solution>",
            "<think>a</think><solution>3</solution><solution>4</solution>",
        ] {
            assert_eq!(split(wrong), None, "{wrong}");
        }
    }
}
