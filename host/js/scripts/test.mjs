// Runs the tests; with names of files, those only.
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { readdir } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';

const here = fileURLToPath(new URL('../', import.meta.url));
if (!existsSync(new URL('../dist/index.js', import.meta.url))) {
  console.error('there is no dist: run npm run build first');
  process.exit(1);
}
const given = process.argv.slice(2);
const files = given.length > 0 ? given : (await readdir(`${here}test`)).filter((file) => file.endsWith('.test.mjs')).map((file) => `test/${file}`);
// Two at a time: some start servers, and a browser.
const options = ['--test', '--test-concurrency=2', '--test-reporter=spec'];
const { status } = spawnSync(process.execPath, [...options, ...files.sort()], { cwd: here, stdio: 'inherit' });
process.exit(status ?? 1);
