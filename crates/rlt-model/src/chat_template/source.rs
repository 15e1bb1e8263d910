//! A template's text, brought to what minijinja reads the way jinja2 reads the original.

/// Line ends become `\n` and one at the end is dropped, also inside string literals, as in jinja2's
/// lexer; `{% generation %} .. {% endgeneration %}`, transformers' mark for the assistant's text,
/// becomes a block that only opens a scope.
pub(super) fn prepare(source: &str) -> String {
    let source = source.replace("\r\n", "\n").replace('\r', "\n");
    let source = source.strip_suffix('\n').unwrap_or(&source);
    let mut prepared = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(start) = rest.find("{%") {
        let (before, tag) = rest.split_at(start);
        prepared.push_str(before);
        let (replacement, after) = generation_tag(tag).unwrap_or_else(|| ("{%".to_owned(), &tag[2..]));
        prepared.push_str(&replacement);
        rest = after;
    }
    prepared + rest
}

/// The replacement for a (end)generation tag at the start of `text`, and what follows the tag.
fn generation_tag(text: &str) -> Option<(String, &str)> {
    let inner_start = text.strip_prefix("{%")?;
    let end = inner_start.find("%}")?;
    let (inner, after) = (&inner_start[..end], &inner_start[end + 2..]);
    let opening = inner.chars().next().filter(|c| "-+".contains(*c)).map(String::from).unwrap_or_default();
    let closing = inner.chars().last().filter(|c| "-+".contains(*c)).map(String::from).unwrap_or_default();
    let block = match inner.trim_matches(['-', '+']).trim() {
        "generation" => "with",
        "endgeneration" => "endwith",
        _ => return None,
    };
    Some((format!("{{%{opening} {block} {closing}%}}"), after))
}

#[cfg(test)]
mod tests {
    use super::prepare;

    #[test]
    fn generation_tags_keep_their_whitespace_control() {
        assert_eq!(
            prepare("a {%- generation -%} b {%endgeneration+%} c {% generations %}"),
            "a {%- with -%} b {% endwith +%} c {% generations %}"
        );
    }

    #[test]
    fn line_ends_are_unified_and_the_last_one_dropped() {
        assert_eq!(prepare("a\r\nb\rc\n\n"), "a\nb\nc\n");
    }
}
