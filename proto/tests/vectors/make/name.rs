//! Chapter 01: names, with internationalised and confusable ones.

use serde_json::json;

use crate::vector::File;

pub(crate) fn name() -> File {
    let mut file = File::new("01-conventions", "name", "Is this text a name of this kind, as it stands?");
    valid(&mut file);
    domains(&mut file);
    users_and_addresses(&mut file);
    file
}

fn valid(file: &mut File) {
    let user = "a".repeat(63);
    let label = "b".repeat(63);
    let longest = [&label[..], &label, &label, &"c".repeat(61)].join(".");
    for (kind, text, comment) in [
        ("domain", "a.example", "two labels"),
        ("domain", "localhost", "one label"),
        ("domain", "1.example", "a label of digits that is not the last"),
        ("domain", "a-b.c0", "a hyphen inside, a digit at the end"),
        ("domain", "0x7g", "not hexadecimal"),
        ("domain", "a1.1a", "a last label with a letter"),
        ("domain", longest.as_str(), "253 bytes, labels of 63"),
        ("user", "a", "one byte"),
        ("user", "0._-", "every kind of byte"),
        ("user", user.as_str(), "63 bytes"),
        ("address", "alice@a.example", "the story's"),
        ("address", "1.2@localhost", "a user of digits and a dot"),
    ] {
        file.valid(&["FRM-040"], comment, json!({"kind": kind, "text": text}), json!(true));
    }
    for (text, unicode, comment, flag) in [
        ("xn--bcher-kva.example", "b\u{fc}cher.example", "an A-label", "idn"),
        ("xn--strae-oqa.example", "stra\u{df}e.example", "sharp s stays: non-transitional", "idn"),
        ("xn--fiqs8s", "\u{4e2d}\u{56fd}", "an A-label alone", "idn"),
        ("xn--e1afmkfd.example", "\u{43f}\u{440}\u{438}\u{43c}\u{435}\u{440}.example", "one script", "idn"),
        (
            "xn--pple-43d.example",
            "\u{430}pple.example",
            "Cyrillic a before Latin letters: valid, shown as it is",
            "mixed-script",
        ),
        (
            "xn--80ak6aa92e.example",
            "\u{430}\u{440}\u{440}\u{4cf}\u{435}.example",
            "Cyrillic letters that look Latin: one script",
            "confusable",
        ),
    ] {
        let vector = file.valid(
            &["FRM-040", "FRM-042"],
            comment,
            json!({"kind": "domain", "text": text}),
            json!(true),
        );
        vector.flag(flag).steps(json!({"unicode": unicode}));
    }
}

fn domains(file: &mut File) {
    let label = "a".repeat(64);
    let long = ["a"; 128].join(".");
    for (text, comment) in [
        ("", "empty"),
        ("Example.org", "a capital letter: nothing is folded"),
        ("example.org.", "a dot at the end"),
        (".example.org", "a dot at the start"),
        ("a..b", "an empty label"),
        ("a.example:443", "a port"),
        ("[::1]", "an IPv6 literal"),
        ("127.0.0.1", "an IPv4 literal"),
        ("a.1", "a last label of digits"),
        ("1.2.3.0x7f", "a last label that URL parsers read as a number"),
        ("-a.example", "a hyphen at the start of a label"),
        ("a-.example", "a hyphen at the end of a label"),
        ("a_b.example", "an underscore"),
        ("a b.example", "a blank"),
        (" a.example", "a blank at the start: nothing is trimmed"),
        ("a.example\n", "a line feed at the end"),
        ("a.example\u{0}", "a zero byte at the end"),
        ("ab--c.example", "hyphens in the third and fourth place without xn"),
        ("xn--.example", "an A-label without content"),
        ("xn--a.example", "an A-label that does not decode"),
        ("xn--abc-.example", "an A-label of nothing but ASCII"),
        ("XN--bcher-kva.example", "an A-label in capitals"),
        ("xn--Bcher-kva.example", "a capital inside an A-label"),
        ("xn--u-ccb.example", "an A-label of a letter and a mark that have a composed form"),
        ("xn--b-5wn.example", "an A-label of a sign that stands for another letter"),
        ("xn--a-ubb.example", "an A-label that begins with a mark"),
        ("xn--ab-m1t.example", "an A-label with a joiner between Latin letters"),
        ("b\u{fc}cher.example", "a U-label"),
        ("\u{430}pple.example", "a Cyrillic letter that looks Latin"),
        ("\u{ff41}.example", "a full-width letter: nothing is normalised"),
        ("a\u{3002}example", "an ideographic full stop"),
        ("a\u{ad}b.example", "a soft hyphen"),
        ("a\u{200d}b.example", "a zero-width joiner"),
        ("xn--a-ecp.example", "an A-label of a number with a full stop, which has no place in names"),
        (label.as_str(), "a label of 64 bytes"),
        (long.as_str(), "255 bytes"),
    ] {
        let inputs = json!({"kind": "domain", "text": text});
        file.invalid(&["FRM-040", "FRM-041"], comment, "message-malformed", inputs);
    }
}

fn users_and_addresses(file: &mut File) {
    let long = "a".repeat(64);
    for (kind, text, comment) in [
        ("user", "", "empty"),
        ("user", "Alice", "a capital letter"),
        ("user", ".a", "a dot at the start"),
        ("user", "-a", "a hyphen at the start"),
        ("user", "_a", "an underscore at the start"),
        ("user", "a+b", "a plus sign"),
        ("user", "a b", "a blank"),
        ("user", "\u{e4}", "a letter outside ASCII"),
        ("user", "\u{430}lice", "a Cyrillic letter that looks Latin"),
        ("user", long.as_str(), "64 bytes"),
        ("address", "alice", "no @"),
        ("address", "@a.example", "no user"),
        ("address", "alice@", "no domain"),
        ("address", "a@b@c.example", "two @"),
        ("address", "Alice@a.example", "a capital letter in the user"),
        ("address", "alice@A.example", "a capital letter in the domain"),
        ("address", "alice@a.example.", "a dot at the end"),
        ("address", "alice@127.0.0.1", "an IPv4 literal"),
        ("address", "alice\u{ff20}a.example", "a full-width @"),
    ] {
        let inputs = json!({"kind": kind, "text": text});
        file.invalid(&["FRM-040", "FRM-041"], comment, "message-malformed", inputs);
    }
}
