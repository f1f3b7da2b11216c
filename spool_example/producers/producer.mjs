// Enqueue a command from Node: node producer.mjs tar czf backup.tgz src
import { randomBytes } from "node:crypto";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";

const spool = process.env.QUEUECTL_SPOOL || path.join(os.homedir(), ".queuectl");
const name = `from-node-${Math.floor(Date.now() / 1000)}-${randomBytes(4).toString("hex")}`;
const draft = path.join(spool, "tmp", name);

function sync(file) {
  const fd = fs.openSync(file, "r");
  fs.fsyncSync(fd);
  fs.closeSync(fd);
}

const job = { command: process.argv.slice(2), cwd: process.cwd() };
fs.writeFileSync(draft, JSON.stringify(job), { flag: "wx", mode: 0o600 }); // 1. the whole file, in tmp/
sync(draft); // 2. its bytes on the disk
fs.linkSync(draft, path.join(spool, "pending", `${name}.json`)); // 3. at once into pending/, never onto an existing name
fs.unlinkSync(draft);
sync(path.join(spool, "pending")); // 4. its name on the disk: now the job survives a power cut
console.log(name);
