use kube::core::{Message, Rule};

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
