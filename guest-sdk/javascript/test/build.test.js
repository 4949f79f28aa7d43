// From source to component, with the pinned tools: those of JS_TOOLS, or of
// `tools/`. Without them these tests are skipped.

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { after, describe, test } from "node:test";
import { fileURLToPath } from "node:url";

const SDK = path.join(path.dirname(fileURLToPath(import.meta.url)), "..");
const TOOLS = process.env.JS_TOOLS ?? path.join(SDK, "tools");
const skip = fs.existsSync(path.join(TOOLS, "node_modules")) ? false : `no tools in ${TOOLS}`;

describe("build.mjs", { skip }, () => {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), "weir-guest-test-"));
  after(() => fs.rmSync(folder, { recursive: true }));
  const output = path.join(folder, "handler.wasm");

  /** Builds a handler of this source, and returns what was said. */
  function build(source, name = "handler.js") {
    fs.writeFileSync(path.join(folder, name), source);
    const arguments_ = [path.join(SDK, "build.mjs"), name, "-o", "handler.wasm", "--tools", path.resolve(TOOLS)];
    const { status, stderr } = spawnSync(process.execPath, arguments_, { cwd: folder, encoding: "utf8" });
    return { status, stderr };
  }

  function refused(source, reason) {
    fs.rmSync(output, { force: true });
    const { status, stderr } = build(source);
    assert.equal(status, 1, stderr);
    assert.match(stderr, reason);
    assert.ok(!fs.existsSync(output));
  }

  test("a component appears as a whole, and nothing else does", () => {
    const { status, stderr } = build('import { handler } from "weir-guest";\nexport const handle = handler(() => {});');
    assert.equal(status, 0, stderr);
    assert.equal(fs.readFileSync(output).toString("latin1", 0, 8), "\0asm\r\0\x01\0");
    assert.deepEqual(fs.readdirSync(folder).sort(), ["handler.js", "handler.wasm"]);
  });

  test("TypeScript is taken, with everything that it imports", () => {
    fs.writeFileSync(path.join(folder, "other.ts"), "export const one: number = 1;");
    const source = `import { cell, handler } from "weir-guest"; import { one } from "./other";
      export const handle = handler((e) => void cell<number>("n").set(one + e.sequence));`;
    const { status, stderr } = build(source, "handler.ts");
    assert.equal(status, 0, stderr);
  });

  const start = 'import { cell, handler } from "weir-guest";\n';
  const end = "\nexport const handle = handler(() => {});";

  test("what cannot be a handler is refused, with the place", () => {
    refused("export const other = 1;", /handler.js exports no `handle`/);
    refused("export const handle = ", /Unexpected end of file/);
    refused(`import "node:fs";${end}`, /node:fs is a module of Node/);
    refused(`${start}throw new Error("too early");${end}`, /fails when it is loaded: Error: too early\n +at .*\(handler.js:2\)/);
    refused(`${start}cell("n").get();${end}`, /a cell can be used only while an event is handled[^]*\(handler.js:2\)/);
    refused(`${start}console.log("hello");${end}`, /console can be used only while an event is handled/);
  });
});
