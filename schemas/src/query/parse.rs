//! Reads queries by recursive descent over their characters; every error says at which.

use super::{
    Field, MAX_CONDITIONS, MAX_DEPTH, MAX_LENGTH, Node, Order, QueryError, Test, event,
    pattern::Pattern,
    value::{Glob, Literal, Piece},
};

/// Which words are fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Words {
    OfDevices,
    OfEvents,
}

pub(super) fn parse(text: &str, words: Words) -> Result<Node, QueryError> {
    let mut parser = Parser {
        words,
        chars: text.chars().collect(),
        at: 0,
        depth: 0,
        values: 0,
    };
    if parser.chars.len() > MAX_LENGTH {
        parser.at = MAX_LENGTH;
        return Err(parser.error(format!("a query has at most {MAX_LENGTH} characters")));
    }
    let node = parser.any(&mut Parser::condition)?;
    match parser.peek() {
        None => Ok(node),
        Some(')') => Err(parser.error("this bracket closes nothing")),
        Some(_) => Err(parser.error("expected `and`, `or` or the end")),
    }
}

struct Parser {
    words: Words,
    chars: Vec<char>,
    at: usize,
    depth: usize,
    values: usize,
}

/// Reads what stands between `and`, `or` and `not`.
type Leaf<'a> = &'a mut dyn FnMut(&mut Parser) -> Result<Node, QueryError>;

impl Parser {
    fn error(&self, reason: impl Into<String>) -> QueryError {
        QueryError {
            at: self.at + 1,
            reason: reason.into(),
        }
    }

    fn error_at(&self, at: usize, reason: impl Into<String>) -> QueryError {
        QueryError {
            at: at + 1,
            reason: reason.into(),
        }
    }

    /// The next character that is no space.
    fn peek(&mut self) -> Option<char> {
        while self.next_char().is_some_and(char::is_whitespace) {
            self.at += 1;
        }
        self.next_char()
    }

    fn next_char(&self) -> Option<char> {
        self.chars.get(self.at).copied()
    }

    fn take(&mut self, wanted: char) -> bool {
        let there = self.peek() == Some(wanted);
        self.at += usize::from(there);
        there
    }

    /// Takes a keyword, in capitals or not.
    fn keyword(&mut self, keyword: &str) -> bool {
        self.peek();
        let rest = &self.chars[self.at..];
        let length = keyword.len();
        let there = rest.len() >= length
            && rest
                .iter()
                .zip(keyword.chars())
                .all(|(c, k)| c.eq_ignore_ascii_case(&k))
            && !rest.get(length).is_some_and(|c| is_word(*c) || *c == ':');
        if there {
            self.at += length;
        }
        there
    }

    fn any(&mut self, leaf: Leaf<'_>) -> Result<Node, QueryError> {
        let mut nodes = vec![self.all(leaf)?];
        while self.keyword("or") {
            nodes.push(self.all(leaf)?);
        }
        Ok(one_or(nodes, Node::Any))
    }

    fn all(&mut self, leaf: Leaf<'_>) -> Result<Node, QueryError> {
        let mut nodes = vec![self.not(leaf)?];
        loop {
            let joined = self.keyword("and");
            let start = self.at;
            let ends = self.keyword("or") || matches!(self.peek(), None | Some(')'));
            self.at = start;
            if ends && !joined {
                return Ok(one_or(nodes, Node::All));
            }
            nodes.push(self.not(leaf)?);
        }
    }

    fn not(&mut self, leaf: Leaf<'_>) -> Result<Node, QueryError> {
        let start = self.at;
        if self.keyword("not") || self.take('-') {
            return self.deeper(start, |parser| Ok(Node::Not(Box::new(parser.not(leaf)?))));
        }
        if self.take('(') {
            return self.deeper(start, |parser| {
                let node = parser.any(leaf)?;
                match parser.take(')') {
                    true => Ok(node),
                    false => Err(parser.error(format!(
                        "expected `and`, `or` or the bracket that closes the one at character {}",
                        start + 1
                    ))),
                }
            });
        }
        leaf(self)
    }

    fn deeper(
        &mut self,
        start: usize,
        read: impl FnOnce(&mut Parser) -> Result<Node, QueryError>,
    ) -> Result<Node, QueryError> {
        if self.depth >= MAX_DEPTH {
            let reason = format!("brackets and `not` are at most {MAX_DEPTH} deep");
            return Err(self.error_at(start, reason));
        }
        self.depth += 1;
        let node = read(self);
        self.depth -= 1;
        node
    }

    /// A field and what is asked of it.
    fn condition(&mut self) -> Result<Node, QueryError> {
        self.peek();
        let start = self.at;
        let node = self.comparison()?;
        event::graded(node).map_err(|reason| self.error_at(start, reason))
    }

    fn comparison(&mut self) -> Result<Node, QueryError> {
        if self.keyword("exists") {
            let bracket = self.take('(');
            let (field, _) = self.field()?;
            if bracket && !self.take(')') {
                return Err(self.error("expected `)`"));
            }
            self.count(self.at)?;
            return Ok(Node::Is(field, Test::Exists));
        }
        let (field, start) = self.field()?;
        if self.keyword("in") {
            return self.list(field);
        }
        match self.operator() {
            Some(":") => return self.terms(&field),
            Some("~") => {
                let test = self.pattern()?;
                return Ok(Node::Is(field, test));
            }
            Some(operator) => {
                let literal = self.literal()?;
                let test = match operator {
                    "<" => Test::Order(Order::Less, literal),
                    "<=" => Test::Order(Order::AtMost, literal),
                    ">" => Test::Order(Order::More, literal),
                    ">=" => Test::Order(Order::AtLeast, literal),
                    _ => Test::Equals(literal),
                };
                let node = Node::Is(field, test);
                return Ok(match operator {
                    "!=" => Node::Not(Box::new(node)),
                    _ => node,
                });
            }
            None => {}
        }
        if field == Field::Online {
            let literal = Literal::new("true".into(), true, false);
            self.count(start)?;
            return Ok(Node::Is(field, Test::Equals(literal)));
        }
        Err(self.error("expected =, !=, <, <=, >, >=, ~, `in` or `:` and a value behind the field"))
    }

    fn operator(&mut self) -> Option<&'static str> {
        self.peek();
        let rest = &self.chars[self.at..];
        let all = ["<=", ">=", "!=", "==", "<", ">", "=", "~", ":"];
        let starts = |operator: &&str| {
            let mut characters = operator.chars().enumerate();
            characters.all(|(at, c)| rest.get(at) == Some(&c))
        };
        let operator = all.into_iter().find(starts)?;
        self.at += operator.len();
        Some(operator)
    }

    /// A field and where it stands.
    fn field(&mut self) -> Result<(Field, usize), QueryError> {
        let first = self.peek();
        let start = self.at;
        if !first.is_some_and(|c| c.is_alphabetic() || c == '_') {
            return Err(self.error(match self.words {
                Words::OfDevices => {
                    "expected a field: name, type, online, group or an attribute, like model = \"x1\""
                }
                Words::OfEvents => {
                    "expected a field: device, group, source, level, severity, message or an attribute, \
                     like level >= WARN"
                }
            }));
        }
        let mut word = String::new();
        while let Some(c) = self.next_char().filter(|c| is_word(*c)) {
            word.push(c);
            self.at += 1;
        }
        if self.next_char() == Some('"') {
            match (word.as_str(), self.words) {
                ("attributes.", Words::OfDevices) | ("device.", Words::OfEvents) => {
                    return Ok((Field::Attribute(self.quoted()?), start));
                }
                ("attributes.", Words::OfEvents) => {
                    return Ok((Field::OfEvent(self.quoted()?), start));
                }
                _ => {}
            }
        }
        if let (Words::OfEvents, Some(field)) = (self.words, event::field(&word)) {
            return Ok((field, start));
        }
        let field = match word.as_str() {
            "name" | "thingName" => Field::Name,
            "type" | "thingTypeName" => Field::Kind,
            "online" | "connectivity.connected" => Field::Online,
            "group" | "thingGroupNames" => Field::Group,
            _ => match word.strip_prefix("attributes.") {
                Some("") => return Err(self.error("expected the name of an attribute")),
                Some(key) => self.attribute(key.to_owned()),
                None => self.plain_attribute(word, start)?,
            },
        };
        Ok((field, start))
    }

    fn plain_attribute(&self, word: String, start: usize) -> Result<Field, QueryError> {
        let keywords = ["and", "or", "not", "in", "exists", "to"];
        let foreign = [
            "shadow.",
            "connectivity.",
            "deviceDefender.",
            "registry.",
            "jobs.",
        ];
        if keywords
            .iter()
            .any(|keyword| word.eq_ignore_ascii_case(keyword))
        {
            let reason = format!(
                "expected a field instead of `{word}`; an attribute of that name is attributes.{word}"
            );
            return Err(self.error_at(start, reason));
        }
        if word == "thingId" || foreign.iter().any(|begin| word.starts_with(begin)) {
            let reason =
                format!("there is no field {word}; an attribute of that name is attributes.{word}");
            return Err(self.error_at(start, reason));
        }
        Ok(self.attribute(word))
    }

    /// An attribute that is named without saying whose.
    fn attribute(&self, name: String) -> Field {
        match self.words {
            Words::OfDevices => Field::Attribute(name),
            Words::OfEvents => Field::OfEvent(name),
        }
    }

    fn count(&mut self, at: usize) -> Result<(), QueryError> {
        self.values += 1;
        match self.values > MAX_CONDITIONS {
            true => Err(self.error_at(at, format!("a query has at most {MAX_CONDITIONS} values"))),
            false => Ok(()),
        }
    }

    /// `("a", "b")` behind `in`.
    fn list(&mut self, field: Field) -> Result<Node, QueryError> {
        let close = match (self.take('('), self.take('[')) {
            (true, false) => ')',
            (false, true) => ']',
            _ => return Err(self.error("expected a list in brackets, like (\"a\", \"b\")")),
        };
        let mut nodes = Vec::new();
        loop {
            nodes.push(Node::Is(field.clone(), Test::Equals(self.literal()?)));
            if self.take(close) {
                return Ok(one_or(nodes, Node::Any));
            }
            if !self.take(',') {
                return Err(self.error(format!("expected `,` or `{close}`")));
            }
        }
    }

    /// A value in quotes, or a word.
    fn literal(&mut self) -> Result<Literal, QueryError> {
        let first = self.peek();
        self.count(self.at)?;
        if first == Some('"') {
            return Ok(Literal::new(self.quoted()?, true, false));
        }
        let mut word = String::new();
        while let Some(c) = self.next_char().filter(|c| is_word(*c) || *c == ':') {
            word.push(c);
            self.at += 1;
        }
        match word.is_empty() {
            true => Err(self.error("expected a value; text with other characters than letters, digits, _ - . : stands in \"quotes\"")),
            false => Ok(Literal::new(word, false, false)),
        }
    }

    /// Text in quotes; `\` takes the next character as it is.
    fn quoted(&mut self) -> Result<String, QueryError> {
        let start = self.at;
        self.at += 1;
        let mut text = String::new();
        loop {
            match self.next_char() {
                None => return Err(self.error_at(start, "these quotes are not closed")),
                Some('"') => {
                    self.at += 1;
                    return Ok(text);
                }
                Some('\\') => {
                    self.at += 1;
                    text.extend(self.next_char());
                }
                Some(c) => text.push(c),
            }
            self.at += 1;
        }
    }

    /// What stands behind `~`.
    fn pattern(&mut self) -> Result<Test, QueryError> {
        let first = self.peek();
        let start = self.at;
        self.count(start)?;
        match first {
            Some('"') => Ok(Test::Like(Glob::of(&self.quoted()?))),
            Some('/') => {
                let pattern = self.slashed()?;
                Pattern::new(&pattern).map(Test::Found).map_err(|error| {
                    let text = error.to_string();
                    let last = text.lines().last().unwrap_or_default();
                    let reason = last.trim_start_matches("error: ");
                    self.error_at(start, format!("no regular expression: {reason}"))
                })
            }
            _ => Err(self.error("expected a pattern like \"x*\" or /^x[0-9]/")),
        }
    }

    /// A regular expression; `\/` is a slash.
    fn slashed(&mut self) -> Result<String, QueryError> {
        let start = self.at;
        self.at += 1;
        let mut pattern = String::new();
        loop {
            match (self.next_char(), self.chars.get(self.at + 1)) {
                (None, _) => {
                    return Err(self.error_at(start, "this regular expression is not closed by /"));
                }
                (Some('/'), _) => {
                    self.at += 1;
                    return Ok(pattern);
                }
                (Some('\\'), Some(&next)) => {
                    if next != '/' {
                        pattern.push('\\');
                    }
                    pattern.push(next);
                    self.at += 2;
                    continue;
                }
                (Some(c), _) => pattern.push(c),
            }
            self.at += 1;
        }
    }

    /// AWS IoT's syntax behind `field:`.
    fn terms(&mut self, field: &Field) -> Result<Node, QueryError> {
        let start = self.at;
        if self.take('(') {
            return self.deeper(start, |parser| {
                let node = parser.any(&mut |parser| parser.term(field))?;
                match parser.take(')') {
                    true => Ok(node),
                    false => Err(parser.error("expected `)`")),
                }
            });
        }
        self.term(field)
    }

    /// One value of AWS IoT's syntax.
    fn term(&mut self, field: &Field) -> Result<Node, QueryError> {
        let first = self.peek();
        let start = self.at;
        self.count(start)?;
        let is = |test| Node::Is(field.clone(), test);
        match first {
            Some('[' | '{') => return self.range(field),
            Some('<' | '>') => {
                let order = match self.operator() {
                    Some("<") => Order::Less,
                    Some("<=") => Order::AtMost,
                    Some(">") => Order::More,
                    _ => Order::AtLeast,
                };
                return Ok(is(Test::Order(order, self.folded()?)));
            }
            Some('"') => {
                let literal = Literal::new(self.quoted()?, true, true);
                return Ok(is(Test::Equals(literal)));
            }
            _ => {}
        }
        let glob = self.glob();
        if glob.is_anything() {
            return Ok(is(Test::Exists));
        }
        match glob.literal() {
            Some(text) if text.is_empty() => Err(self.error_at(start, "expected a value")),
            Some(text) => Ok(is(Test::Equals(Literal::new(text, true, true)))),
            None => Ok(is(Test::Like(glob))),
        }
    }

    /// Characters up to a space or bracket; `\` takes the next one as it is.
    fn glob(&mut self) -> Glob {
        let mut pieces = Vec::new();
        while let Some(c) = self.next_char() {
            if c.is_whitespace() || "()[]{}\"".contains(c) {
                break;
            }
            self.at += 1;
            pieces.push(match c {
                '*' => Piece::Any,
                '?' => Piece::One,
                '\\' => {
                    let next = self.next_char();
                    self.at += usize::from(next.is_some());
                    Piece::Exactly(next.unwrap_or(c))
                }
                c => Piece::Exactly(c),
            });
        }
        Glob::new(pieces, true)
    }

    /// A value without wildcards.
    fn folded(&mut self) -> Result<Literal, QueryError> {
        if self.peek() == Some('"') {
            return Ok(Literal::new(self.quoted()?, true, true));
        }
        let start = self.at;
        match self.glob().literal() {
            Some(text) if !text.is_empty() => Ok(Literal::new(text, false, true)),
            _ => Err(self.error_at(start, "expected a value without wildcards")),
        }
    }

    /// `[1 TO 5]`, `{1 TO 5}`; `*` leaves an end open.
    fn range(&mut self, field: &Field) -> Result<Node, QueryError> {
        let low = match self.take('[') {
            true => Order::AtLeast,
            false => {
                self.take('{');
                Order::More
            }
        };
        let mut ends = Vec::new();
        let mut end = |parser: &mut Parser, order: Option<Order>| {
            if !parser.take('*') {
                ends.push((order, parser.folded()?));
            }
            Ok(())
        };
        end(self, Some(low))?;
        if !self.keyword("to") {
            return Err(self.error("expected `TO`, as in [1 TO 5]"));
        }
        end(self, None)?;
        let high = match (self.take(']'), self.take('}')) {
            (true, _) => Order::AtMost,
            (_, true) => Order::Less,
            _ => return Err(self.error("expected `]` or `}`")),
        };
        let tests = ends.into_iter().map(|(order, literal)| {
            let test = Test::Order(order.unwrap_or(high), literal);
            Node::Is(field.clone(), test)
        });
        let tests: Vec<Node> = tests.collect();
        match tests.is_empty() {
            true => Ok(Node::Is(field.clone(), Test::Exists)),
            false => Ok(one_or(tests, Node::All)),
        }
    }
}

fn one_or(mut nodes: Vec<Node>, many: fn(Vec<Node>) -> Node) -> Node {
    match (nodes.len(), nodes.pop()) {
        (1, Some(node)) => node,
        (_, last) => {
            nodes.extend(last);
            many(nodes)
        }
    }
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '_' | '-' | '.')
}
