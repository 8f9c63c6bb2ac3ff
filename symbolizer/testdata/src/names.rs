//! Rust names: modules, generics, trait implementations, closures.
use std::fmt::Display;

mod shapes {
    pub trait Area {
        fn area(&self) -> f64;
    }
    pub struct Square(pub f64);
    impl Area for Square {
        #[inline(never)]
        fn area(&self) -> f64 {
            self.0 * self.0
        }
    }
    impl Square {
        #[inline(never)]
        pub fn grow(&mut self, by: f64) {
            self.0 += std::hint::black_box(by);
        }
    }
}

#[inline(never)]
fn largest<T: PartialOrd + Copy>(items: &[T]) -> T {
    let mut max = items[0];
    for &i in items {
        if i > max {
            max = i;
        }
    }
    max
}

#[inline(never)]
fn show<T: Display>(value: T) -> String {
    format!("<{value}>")
}

#[no_mangle]
#[inline(never)]
pub extern "C" fn exported(x: i32) -> i32 {
    std::hint::black_box(x) + 1
}

fn main() {
    use shapes::Area;
    let mut square = shapes::Square(2.0);
    square.grow(1.0);
    println!(
        "{} {} {} {} {} {}",
        square.area(),
        largest(&[1, 2, 3]),
        largest(&[1.5, 2.5]),
        show("x"),
        show(7u8),
        exported(1)
    );
}
