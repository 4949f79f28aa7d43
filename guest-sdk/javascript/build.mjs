#!/usr/bin/env node
// Builds a handler in JavaScript or TypeScript into a component.
//
//     node build.mjs handler.ts -o handler.wasm [--tools FOLDER] [--opt-size]
//
// 1. esbuild bundles the file and all that it imports into one ES module, which
//    is checked to export `handle`.
// 2. A table that names the lines of the sources goes with it, for stacks.
// 3. componentize-qjs runs the module up to its end, and makes a component of
//    QuickJS in the state that it has then.
// 4. Integers of 64 bits are made exact: `build/exact_u64.mjs`.
// 5. The file appears under its name when it is whole, and only if it is new.
//
// esbuild does not check types; `tsc --noEmit` does, before.

import fs from "node:fs";
import { createRequire } from "node:module";
import os from "node:os";
import path from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { parseArgs } from "node:util";

import { makeU64Exact } from "./build/exact_u64.mjs";
import { sourceLines } from "./build/source_lines.mjs";
import { sourceLines as translate } from "./src/host/source_lines.js";

const SDK = path.dirname(fileURLToPath(import.meta.url));
/** The WIT package of handlers: in the repository, or beside this file in a package. */
const HANDLER_WIT = [path.join(SDK, "wit/handler.wit"), path.join(SDK, "../../wit/world.wit")];
const USAGE = "usage: node build.mjs HANDLER.js|.ts -o COMPONENT.wasm [--tools FOLDER] [--opt-size]";
/** What componentize-qjs says before an error of the module. */
const ENGINE_PREFIX = /^:? ?(Failed to [^:]*: )*/;

/** Something that the user can mend; without a stack. */
class Problem extends Error {}

async function main() {
  const { entry, output, tools, optSize } = readArguments();
  const { esbuild, componentize } = loadTools(tools);
  const { source, table } = await bundle(esbuild, entry);
  const component = await makeComponent(componentize, source, table, optSize);
  makeU64Exact(component);
  writeIfNew(output, component);
}

function readArguments() {
  const options = {
    output: { type: "string", short: "o" },
    tools: { type: "string", default: process.env.JS_TOOLS },
    "opt-size": { type: "boolean", default: false },
  };
  let parsed;
  try {
    parsed = parseArgs({ options, allowPositionals: true });
  } catch (error) {
    throw new Problem(`${error.message}\n${USAGE}`);
  }
  const [entry, ...more] = parsed.positionals;
  if (entry === undefined || more.length > 0 || parsed.values.output === undefined) throw new Problem(USAGE);
  if (!fs.existsSync(entry)) throw new Problem(`${entry}: no such file`);
  return { entry, output: parsed.values.output, tools: parsed.values.tools, optSize: parsed.values["opt-size"] };
}

/** The pinned tools: of `--tools` or JS_TOOLS, else of the project, else of the SDK. */
function loadTools(named) {
  const folders = named === undefined ? [process.cwd(), path.join(SDK, "tools")] : [named];
  const load = (name) => {
    for (const folder of folders) {
      const require = createRequire(path.join(path.resolve(folder), "package.json"));
      try {
        return require(name);
      } catch (error) {
        if (error.code !== "MODULE_NOT_FOUND") throw error;
      }
    }
    throw new Problem(
      `${name} is not installed in ${folders.join(" or ")}; ` +
        `install the pinned tools with: npm ci --ignore-scripts --prefix ${path.join(SDK, "tools")}`,
    );
  };
  const esbuild = load("esbuild");
  return { esbuild, componentize: load("componentize-qjs").componentize };
}

async function bundle(esbuild, entry) {
  let result;
  try {
    result = await esbuild.build({
      entryPoints: [entry],
      bundle: true,
      format: "esm",
      platform: "neutral",
      mainFields: ["module", "main"],
      // `weir` makes the SDK use the host of components.
      conditions: ["weir", "import", "module"],
      target: "es2023",
      // What one file exports and how long its names are is nothing to a
      // component; that stacks can be read is.
      minify: false,
      keepNames: false,
      charset: "utf8",
      external: ["weir:*", "wasi:*"],
      // Before every other module: one that asks for `console` when it is loaded finds it.
      inject: [path.join(SDK, "src/host/globals.js")],
      plugins: [findSdk, explainNode],
      sourcemap: "external",
      sourcesContent: false,
      metafile: true,
      write: false,
      outfile: "bundle.js",
    });
  } catch (error) {
    if (error.errors === undefined) throw error;
    throw new Problem(`${entry} cannot be bundled`); // esbuild has said why
  }
  const [{ exports }] = Object.values(result.metafile.outputs).filter((output) => output.entryPoint !== undefined);
  if (!exports.includes("handle")) {
    throw new Problem(`${entry} exports no \`handle\`: export const handle = handler((event) => { … })`);
  }
  const file = (suffix) => result.outputFiles.find((output) => output.path.endsWith(suffix)).text;
  const table = lineTable(file(".map"));
  return { source: `${file("bundle.js")}\nglobalThis.__weirSourceLines = ${JSON.stringify(table)};\n`, table };
}

/** `weir-guest` is this SDK, wherever the handler is. */
const findSdk = {
  name: "weir-guest",
  setup(build) {
    const files = { "weir-guest": "index.js", "weir-guest/testing": "testing.js" };
    build.onResolve({ filter: /^weir-guest(\/testing)?$/ }, ({ path: name }) => ({ path: path.join(SDK, files[name]) }));
  },
};

const explainNode = {
  name: "no-node",
  setup(build) {
    build.onResolve({ filter: /^node:/ }, ({ path: name }) => ({
      errors: [{ text: `${name} is a module of Node; a handler runs in a sandbox that has none of them` }],
    }));
  },
};

/** Sources outside of the project are called by what follows their last `node_modules`, or by their name. */
function lineTable(text) {
  const name = (source) => {
    const inside = !source.startsWith("..");
    if (inside) return source;
    const full = path.resolve(source);
    if (full.startsWith(SDK + path.sep)) return `weir-guest/${path.relative(SDK, full)}`;
    return full.split("node_modules/").at(-1) === full ? path.basename(full) : full.split("node_modules/").at(-1);
  };
  return sourceLines(JSON.parse(text), name);
}

async function makeComponent(componentize, jsSource, table, optSize) {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), "weir-guest-"));
  try {
    const jsPath = path.join(folder, "bundle.js");
    fs.writeFileSync(jsPath, jsSource);
    const witPath = path.join(folder, "wit");
    fs.cpSync(path.join(SDK, "wit"), witPath, { recursive: true });
    fs.mkdirSync(path.join(witPath, "deps/handler"), { recursive: true });
    const handlerWit = HANDLER_WIT.find((file) => fs.existsSync(file));
    if (handlerWit === undefined) throw new Problem(`the WIT of handlers is at neither of ${HANDLER_WIT.join(", ")}`);
    fs.copyFileSync(handlerWit, path.join(witPath, "deps/handler/world.wit"));
    const { component } = await componentize({ witPath, world: "handler", jsPath, jsSource, sync: true, optSize });
    return component;
  } catch (error) {
    if (error instanceof Problem) throw error;
    const reason = error.message.replace(ENGINE_PREFIX, "").trimEnd();
    throw new Problem(`the handler's module fails when it is loaded: ${translate(reason, table)}`);
  } finally {
    fs.rmSync(folder, { recursive: true, force: true });
  }
}

/** A host may be watching the folder: it sees a whole file, and only a new one. */
function writeIfNew(output, component) {
  if (fs.existsSync(output) && fs.readFileSync(output).equals(component)) {
    const now = new Date();
    fs.utimesSync(output, now, now); // make compares times
    return;
  }
  const temporary = `${output}.${process.pid}.new`;
  try {
    fs.writeFileSync(temporary, component);
    fs.renameSync(temporary, output);
  } finally {
    fs.rmSync(temporary, { force: true });
  }
}

if (import.meta.url === pathToFileURL(fs.realpathSync(process.argv[1])).href) {
  try {
    await main();
  } catch (error) {
    console.error(error instanceof Problem ? `error: ${error.message}` : error);
    process.exitCode = 1;
  }
}
