//! The tag: its text stands on subvolumes that older and newer Shoals made.

use shoal_domain::owner::{Left, Owner};

fn owner(left: Option<Left>) -> Owner {
    Owner {
        cluster: "c".into(),
        namespace: "team".into(),
        name: "a".into(),
        uid: "uid-a".into(),
        left,
    }
}

fn read(tag: &str) -> Owner {
    serde_json::from_str(tag).unwrap()
}

#[test]
fn tag_of_one_that_is_somebodys_says_nothing_of_being_left() {
    let tag = r#"{"cluster":"c","namespace":"team","name":"a","uid":"uid-a"}"#;
    assert_eq!(owner(None).to_tag(), tag);
    assert_eq!(read(tag), owner(None));
}

#[test]
fn tag_of_one_that_was_left_says_why() {
    for (left, why) in [(Left::Retained, "Retained"), (Left::Abandoned, "Abandoned")] {
        let tag = format!(r#"{{"cluster":"c","namespace":"team","name":"a","uid":"uid-a","left":"{why}"}}"#);
        assert_eq!(owner(Some(left)).to_tag(), tag);
        assert_eq!(read(&tag), owner(Some(left)));
    }
}

#[test]
fn what_a_tag_says_beside_is_ignored() {
    let tag = r#"{"cluster":"c","since":2,"namespace":"team","name":"a","uid":"uid-a","more":{"left":1}}"#;
    assert_eq!(read(tag), owner(None));
}

#[test]
fn one_that_was_left_is_its_owners_still() {
    assert!(owner(Some(Left::Abandoned)).is_same(&owner(None)));
    assert!(owner(None).is_same(&owner(Some(Left::Retained))));
    let other = Owner {
        uid: "uid-b".into(),
        ..owner(Some(Left::Retained))
    };
    assert!(!owner(Some(Left::Retained)).is_same(&other));
}
