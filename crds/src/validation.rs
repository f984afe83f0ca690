use kube::core::{Message, Rule};

/// Some text as it stands in a message: one with a line break in it would be left out altogether.
pub(crate) fn shown(text: &str) -> String {
    format!(r"{text}.replace('\n', '\\n')")
}

/// The rule for keys that users write: Manila's length, and none of Shoal's own.
pub(crate) fn own_keys(field: &str, taken: &[&str]) -> Rule {
    let taken: Vec<_> = taken.iter().map(|key| format!("'{key}'")).collect();
    let bad = format!(
        "size(k) < 1 || size(k) > 255 || k.startsWith('shoal.storage/') || k in [{}]",
        taken.join(", ")
    );
    let shown = shown("");
    Rule::new(format!("self.all(k, !({bad}))")).message(Message::Expression(format!(
        "\"{field}: '\" + self.map(k, {bad}, size(k) > 255 ? k.substring(0, 255) + '…' : k)[0]{shown} + \"' is no key for users; keys have 1 to \
         255 characters, and those of Shoal itself are not among them: take another\""
    )))
}

/// Manila's bounds on the values that users write.
pub(crate) fn bound_values(schema: &mut schemars::Schema) {
    if let Some(values) = schema
        .get_mut("additionalProperties")
        .and_then(serde_json::Value::as_object_mut)
    {
        values.insert("minLength".into(), 1.into());
        values.insert("maxLength".into(), 1023.into());
    }
}

/// The rule that a field of text keeps the value it was made with. `kind` is what to create another one of.
pub(crate) fn immutable(field: &str, kind: &str) -> Rule {
    immutable_value(field, "", kind)
}

/// The same for an object, shown by one of its fields (`.name`).
pub(crate) fn immutable_value(field: &str, shown: &str, kind: &str) -> Rule {
    // Kubernetes 1.34 does not show the value by itself.
    Rule::new("self == oldSelf").message(Message::Expression(format!(
        "'{field} is immutable: it stays ' + oldSelf{shown} + ' and can not become ' + self{shown} + '; create another {kind}'"
    )))
}

/// The rule that an optional field, which is [`immutable`], is neither set nor taken away later.
pub(crate) fn set_at_creation(field: &str, kind: &str) -> Rule {
    Rule::new(format!("has(self.{field}) == has(oldSelf.{field})"))
        .message(Message::Message(format!(
            "{field} is immutable: it can't be set or taken away later; create another {kind}"
        )))
        .field_path(format!(".{field}"))
}
