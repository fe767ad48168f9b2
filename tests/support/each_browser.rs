//! Which tests run in which browsers.

/// Runs each of these tests in Chromium and in Firefox, in a browser of its own.
macro_rules! in_each_browser {
    ($($(#[$attribute:meta])* $test:ident)*) => {
        mod chromium {
            $(
                $(#[$attribute])*
                #[test]
                #[ignore = "needs Chromium: .ci/run installs it"]
                fn $test() {
                    super::$test(&crate::Browser::chromium());
                }
            )*
        }

        mod firefox {
            $(
                $(#[$attribute])*
                #[test]
                #[ignore = "needs Firefox: .ci/run installs it"]
                fn $test() {
                    super::$test(&crate::Browser::firefox());
                }
            )*
        }
    };
}

/// The same for what only Chromium can be told to be: without scripts, in another colour scheme, on paper.
macro_rules! in_chromium {
    ($($test:ident)*) => {
        mod chromium_alone {
            $(
                #[test]
                #[ignore = "needs Chromium: .ci/run installs it"]
                fn $test() {
                    super::$test(&crate::Browser::chromium());
                }
            )*
        }
    };
}
