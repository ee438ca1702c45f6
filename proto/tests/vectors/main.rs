//! The vectors of `spec/vectors`, and what holds for every frame.
//!
//! `make` says what the files hold; `check` asks the library, through its public interface, about each vector that is
//! in them. The files are written anew by
//! `cargo test -p tidings-proto --test vectors -- --ignored write_the_files`.

mod annotate;
mod check;
mod crowd;
mod frames;
mod make;
mod samples;
mod scene;
mod tables;
mod vector;
mod world;

use std::collections::BTreeSet;
use std::fs;

use vector::{File, Outcome, folder};

fn read(file: &File) -> Result<String, String> {
    fs::read_to_string(file.path()).map_err(|error| format!("{}: {error}", file.path().display()))
}

#[test]
fn files_on_disk_are_what_the_generator_makes() {
    for file in make::all() {
        let same = read(&file).is_ok_and(|text| text == file.to_text());
        assert!(same, "{} is out of date: see the head of this file", file.path().display());
    }
}

#[test]
fn no_file_lies_beside_those_that_are_made() {
    let made: BTreeSet<_> = make::all().iter().map(File::path).collect();
    for chapter in fs::read_dir(folder()).expect("spec/vectors") {
        let chapter = chapter.expect("an entry").path();
        for file in fs::read_dir(&chapter).into_iter().flatten() {
            let file = file.expect("an entry").path();
            let is_vectors = file.extension().is_some_and(|extension| extension == "json");
            assert!(!is_vectors || made.contains(&file), "{} is made by nothing", file.display());
        }
    }
}

#[test]
fn every_vector_fares_as_its_file_says() {
    let mut wrong = Vec::new();
    for made in make::all() {
        let text = read(&made).expect("the file is there");
        let file: File = serde_json::from_str(&text).expect("the file has the shape of README.md");
        let asked = check::of(&file);
        for vector in &file.vectors {
            let verdict = asked(&vector.inputs);
            let fits = match (vector.result, &verdict) {
                (Outcome::Valid, Ok(output)) => *output == vector.output && vector.expect.is_none(),
                (Outcome::Invalid, Err(code)) => {
                    vector.expect.as_deref().unwrap_or_default() == code && vector.output.is_null()
                }
                _ => false,
            };
            if !fits {
                wrong.push(format!(
                    "{} ({}): {:?} {:?}, but {verdict:?}",
                    vector.id, vector.comment, vector.result, vector.expect
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn there_are_more_invalid_vectors_than_valid_ones_and_each_says_what_it_is_of() {
    let (mut valid, mut invalid) = (0, 0);
    let mut comments = BTreeSet::new();
    for file in make::all() {
        for vector in file.vectors {
            match vector.result {
                Outcome::Valid => valid += 1,
                Outcome::Invalid => invalid += 1,
            }
            assert!(!vector.reqs.is_empty() && !vector.comment.is_empty(), "{}", vector.id);
            comments.insert((file.name.clone(), vector.comment, vector.inputs.to_string()));
        }
    }
    assert_eq!(comments.len(), valid + invalid, "no vector stands twice");
    println!("{valid} valid, {invalid} invalid");
    assert!(invalid > valid, "{valid} valid, {invalid} invalid");
}

#[test]
#[ignore = "writes into the repository"]
fn write_the_files() {
    for file in make::all() {
        fs::create_dir_all(file.path().parent().expect("a folder")).expect("the folder can be made");
        fs::write(file.path(), file.to_text()).expect("the file can be written");
    }
}
