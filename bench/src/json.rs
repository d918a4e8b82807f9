//! Writes JSON objects, one member a line, so that scripts can read them with `sed` too.

/// An object under construction.
#[derive(Clone, Debug, Default)]
pub struct Object(String);

impl Object {
    /// Adds a member whose value is JSON already.
    pub fn raw(mut self, name: &str, json: &str) -> Self {
        let comma = if self.0.is_empty() { "" } else { ",\n" };
        self.0 += &format!("{comma}  {}: {json}", quoted(name));
        self
    }

    /// Adds a string.
    pub fn text(self, name: &str, value: &str) -> Self {
        self.raw(name, &quoted(value))
    }

    /// Adds a whole number.
    pub fn count(self, name: &str, value: u64) -> Self {
        self.raw(name, &value.to_string())
    }

    /// Adds a number with `decimals` digits behind the point; none (`null`) if it is not finite.
    pub fn number(self, name: &str, value: impl Into<Option<f64>>, decimals: usize) -> Self {
        match value.into() {
            Some(value) if value.is_finite() => self.raw(name, &format!("{value:.decimals$}")),
            _ => self.raw(name, "null"),
        }
    }

    /// Adds all members of another object.
    pub fn all(mut self, other: Object) -> Self {
        if !self.0.is_empty() && !other.0.is_empty() {
            self.0.push_str(",\n");
        }
        self.0.push_str(&other.0);
        self
    }

    /// The finished object.
    pub fn finish(self) -> String {
        format!("{{\n{}\n}}\n", self.0)
    }
}

/// A JSON string.
pub fn quoted(text: &str) -> String {
    let mut out = String::from('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            c if c < ' ' => out += &format!("\\u{:04x}", c as u32),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_is_read_back() {
        let text = Object::default()
            .text("a \"b\"", "\\x\n\u{1}ü")
            .count("n", u64::MAX)
            .number("x", 1.25, 1)
            .number("none", f64::NAN, 1)
            .all(Object::default().raw("list", "[1,2]"))
            .finish();
        let value: serde_json::Value = serde_json::from_str(&text).expect("it is JSON");
        assert_eq!(value["a \"b\""], "\\x\n\u{1}ü");
        assert_eq!(value["n"], u64::MAX);
        assert_eq!(value["x"], 1.2);
        assert!(value["none"].is_null());
        assert_eq!(value["list"][1], 2);
    }
}
