//! What a person does about a halt, by its code: for the log and `status`.

/// In words for an operator.
pub fn remedy(code: &str) -> &'static str {
    match code {
        "credentials" => {
            "the platform refuses the credentials, or they cannot be read: renew benefits.token_file or the OAuth client"
        }
        "forbidden" => "the credentials do not allow this: have their rights at the platform extended",
        "platform-suspended" => "the platform is suspended: ask its operator",
        "wrong-platform" => "no such platform at the address: check benefits.platform_id and base_url",
        "another-writer" => "another system writes the same accounts: stop it, then select benefits.resume()",
        "record-query" => "the record query does not work: benefits-sync doctor says why",
        "platform-doubt" => {
            "the platform's accounts are compared first; where that fails the log says why, and it is tried again"
        }
        "switched-off" => {
            "switched off in the configuration: set benefits.enabled, and start benefits-sync again"
        }
        _ => "see the log",
    }
}
