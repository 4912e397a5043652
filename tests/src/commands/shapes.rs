//! What stays the same between two runs of a command: headings of tables, and labels at the beginning of lines.

/// The headings and labels of an output, in their order. Of a table only the heading counts; of other lines what comes
/// before the last of the parts that two or more spaces divide.
#[must_use]
pub fn shapes<'a>(lines: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    let mut found = Vec::new();
    let mut within = false;
    for line in lines {
        let words: Vec<&str> = line.split_whitespace().collect();
        let is_heading = words.len() > 1 && words.iter().all(|word| is_title(word));
        if words.is_empty() || is_heading {
            within = is_heading;
        }
        let parts: Vec<&str> = line.split("  ").map(str::trim).filter(|part| !part.is_empty()).collect();
        match parts.split_last() {
            _ if is_heading => found.push(words.join(" ")),
            Some((_, labels)) if !within && !labels.is_empty() => found.push(labels.join(" ")),
            _ => {}
        }
    }
    found
}

fn is_title(word: &str) -> bool {
    word.len() > 1 && word.chars().all(|c| c.is_ascii_uppercase() || "-()".contains(c))
}

#[cfg(test)]
mod tests {
    use super::shapes;

    #[test]
    fn headings_and_labels() {
        let text = "Agent     running pid 1\nDeadline  ahead\n\n LINK  XDP  NOTE\n eth0  native  id 1\n eth1  -  -\n\n\
                    3 addresses: 2 answering\n VIP  LINK\n 192.0.2.1  eth0\n\nok    service    It is.\nNO    b  c\n";
        let expected = ["Agent", "Deadline", "LINK XDP NOTE", "VIP LINK", "ok service", "NO b"];
        assert_eq!(shapes(text.lines()), expected);
    }
}
