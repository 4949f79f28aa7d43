// What a handler is called with.

import { host } from "#host";

import { Reject } from "./failure.js";
import { decode } from "./utf8.js";

const NS_PER_MS = 1_000_000n;

export class Event {
  #text;

  /** @param raw the record `event` of the WIT, with integers that `host.bigint` reads */
  constructor(raw) {
    this.id = raw.id;
    this.stream = raw.stream;
    this.sequence = Number(host.bigint(raw.sequence));
    this.subject = raw.subject;
    this.key = raw.key;
    this.time = host.bigint(raw.time);
    this.timer = raw.timer ?? undefined;
    this.headers = raw.headers;
    this.data = raw.data;
  }

  get date() {
    return new Date(Number(this.time / NS_PER_MS));
  }

  header(name) {
    const wanted = name.toLowerCase();
    return this.headers.find((header) => header.name.toLowerCase() === wanted)?.value;
  }

  text() {
    if (this.#text === undefined) {
      try {
        this.#text = decode(this.data);
      } catch {
        throw new Reject("the data is not text in UTF-8");
      }
    }
    return this.#text;
  }

  json() {
    const text = this.text();
    try {
      return JSON.parse(text);
    } catch (error) {
      throw new Reject("the data is not JSON", { cause: error });
    }
  }
}
