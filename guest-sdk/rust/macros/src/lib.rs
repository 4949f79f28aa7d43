//! The `#[handler]` and `#[migrate]` attributes. Documented and re-exported by `weir-guest`,
//! which is the crate to depend on.

use proc_macro::TokenStream;
use quote::quote;
use syn::{Error, ItemFn, parse_macro_input};

/// Makes a function the handler of this component. See `weir_guest::handler`.
#[proc_macro_attribute]
pub fn handler(arguments: TokenStream, item: TokenStream) -> TokenStream {
    let function = parse_macro_input!(item as ItemFn);
    let takes = "one argument: fn handle(event: weir_guest::Event) -> weir_guest::Result";
    if let Err(error) = check("handler", takes, &arguments, &function) {
        return error.into_compile_error().into();
    }
    let name = &function.sig.ident;
    quote! {
        #function

        // Exported from Wasm only: elsewhere the function is an ordinary one,
        // which unit tests call through `weir_guest::testing`.
        #[cfg(target_arch = "wasm32")]
        const _: () = {
            struct Component;

            impl ::weir_guest::bindings::Guest for Component {
                fn handle(
                    event: ::weir_guest::bindings::Event,
                ) -> ::core::result::Result<(), ::weir_guest::bindings::Failure> {
                    ::weir_guest::invoke(event, #name)
                }
            }

            ::weir_guest::bindings::export!(Component with_types_in ::weir_guest::bindings);
        };
    }
    .into()
}

/// Makes a function the migration of this component's state. See `weir_guest::migrate`.
#[proc_macro_attribute]
pub fn migrate(arguments: TokenStream, item: TokenStream) -> TokenStream {
    let function = parse_macro_input!(item as ItemFn);
    let takes = "the version that it begins with: fn migrate(from: u32) -> weir_guest::Result";
    if let Err(error) = check("migrate", takes, &arguments, &function) {
        return error.into_compile_error().into();
    }
    let name = &function.sig.ident;
    quote! {
        #function

        #[cfg(target_arch = "wasm32")]
        const _: () = {
            struct Migration;

            impl ::weir_guest::migration::Guest for Migration {
                fn migrate(from: u32) -> ::core::result::Result<(), ::weir_guest::bindings::Failure> {
                    ::weir_guest::invoke_migration(from, #name)
                }
            }

            ::weir_guest::migration::export!(Migration with_types_in ::weir_guest::migration);
        };
    }
    .into()
}

fn check(attribute: &str, takes: &str, arguments: &TokenStream, function: &ItemFn) -> Result<(), Error> {
    let signature = &function.sig;
    if !arguments.is_empty() {
        return Err(Error::new_spanned(
            &signature.ident,
            format!("#[{attribute}] takes no arguments; sources, key and limits are in handler.toml"),
        ));
    }
    if let Some(token) = &signature.asyncness {
        return Err(Error::new_spanned(
            token,
            format!("#[{attribute}] is not for an async function: host calls return at once"),
        ));
    }
    if !signature.generics.params.is_empty() {
        return Err(Error::new_spanned(
            &signature.generics,
            format!("a function with #[{attribute}] has no generic parameters"),
        ));
    }
    if signature.inputs.len() != 1 {
        return Err(Error::new_spanned(
            &signature.ident,
            format!("a function with #[{attribute}] takes {takes}"),
        ));
    }
    Ok(())
}
