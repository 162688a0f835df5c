//! Quoting for the two readers of a value: the parser of gst-launch descriptions, and the shell.

/// `text` as one value of a gst-launch description.
///
/// The parser takes what stands between double quotes and removes one level of backslashes; the result is read as a
/// string by GValue, which itself unwraps a text that begins with a double quote. Such a text is wrapped once more.
pub fn value(text: &str) -> Result<String, String> {
    if let Some(c) = text.chars().find(|c| c.is_control()) {
        return Err(format!("holds the control character {c:?}"));
    }
    let once = escape(text);
    Ok(if text.starts_with('"') { escape(&once) } else { once })
}

fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        if matches!(c, '"' | '\\') {
            out.push('\\');
        }
        out.push(c);
    }
    out.push('"');
    out
}

/// A description as a line for a shell. gst-launch puts its arguments together again with blanks, so a quoted value
/// stays one argument.
pub fn command_line(launch: &str) -> String {
    let mut line = String::from("gst-launch-1.0 -e");
    for word in words(launch) {
        line.push(' ');
        line.push_str(&shell(&word));
    }
    line
}

/// Splits at blanks outside double quotes.
fn words(launch: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let (mut quoted, mut escaped) = (false, false);
    for c in launch.chars() {
        if c == ' ' && !quoted {
            words.push(String::new());
            continue;
        }
        if c == '"' && !escaped {
            quoted = !quoted;
        }
        escaped = c == '\\' && !escaped;
        words.last_mut().expect("never empty").push(c);
    }
    words.retain(|w| !w.is_empty());
    words
}

fn shell(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=./:,+@%{}".contains(c);
    if word.chars().all(|c| plain(c) && c != '{' && c != '}') {
        return word.to_owned();
    }
    if word == "!" {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}
