// Builds dist/: the component as JavaScript (jco), the script of the Redis store, and the package's own code (tsc). It is built beside
// the old one, which stays until the new one is whole.
import { createHash } from 'node:crypto';
import { execFileSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { cp, mkdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';
import { transpile } from '@bytecodealliance/jco';
import { rolldown } from 'rolldown';

const here = new URL('../', import.meta.url);
const at = (path) => fileURLToPath(new URL(path, here));
const component = await readFile(at('../component/circuitry.wasm'));
const told = (await readFile(at('../component/circuitry.wasm.sha256'), 'utf8')).trim().split(/\s+/)[0];
const digest = createHash('sha256').update(component).digest('hex');
if (digest !== told) {
  throw new Error(`circuitry.wasm has the digest ${digest}, and circuitry.wasm.sha256 says ${told}`);
}

await rm(at('dist.new'), { recursive: true, force: true });
await rm(at('src/generated'), { recursive: true, force: true });

// The component imports functions from `store` and `hooks` only, so there is no shim for WASI.
const { files } = await transpile(component, {
  name: 'circuitry',
  instantiation: { tag: 'async' },
  nodejsCompat: false,
});
const small = {};
for (const [name, content] of Object.entries(files)) {
  // The modules that only join others are a few bytes each: they go into the code, so that there is one file to load.
  if (name.endsWith('.wasm') && content.length < 1024) {
    small[name] = Buffer.from(content).toString('base64');
    continue;
  }
  await mkdir(at(`src/generated/${name}/..`), { recursive: true });
  await writeFile(at(`src/generated/${name}`), content);
}
// jco's code asks the environment at each step whether it is to be traced, which costs a third of a decision: such calls are left
// out, and the rest is made small.
const glue = at('src/generated/circuitry.js');
const bundle = await rolldown({
  input: glue,
  platform: 'neutral',
  treeshake: { manualPureFunctions: ['_debugLog'] },
  onLog: (level, log, tell) => log.code === 'MODULE_LEVEL_DIRECTIVE' || tell(level, log),
});
await bundle.write({ file: glue, format: 'esm', minify: true });
await bundle.close();
const core = Object.keys(files).filter((name) => name.endsWith('.wasm') && !(name in small));
if (core.length !== 1) throw new Error(`one core module was expected: ${core}`);
await writeFile(
  at('src/generated/modules.ts'),
  `/** The core module, beside this file. */
export const CORE = ${JSON.stringify(core[0])};
/** The small modules, in base64. */
export const SMALL: Readonly<Record<string, string>> = ${JSON.stringify(small)};
/** The SHA-256 of circuitry.wasm. */
export const COMPONENT_SHA256 = ${JSON.stringify(digest)};
`,
);
const script = await readFile(at('../redis/src/swap.lua'), 'utf8');
const sha1 = createHash('sha1').update(script).digest('hex');
await writeFile(
  at('src/generated/swap.ts'),
  `/** The script of a swap, as every host sends it. */
export const SWAP_SCRIPT = ${JSON.stringify(script)};
/** Its digest, by which a server knows it. */
export const SWAP_SHA1 = ${JSON.stringify(sha1)};
`,
);

const tsc = createRequire(import.meta.url).resolve('typescript/bin/tsc');
execFileSync(process.execPath, [tsc, '-p', at('tsconfig.json'), '--outDir', at('dist.new')], { stdio: 'inherit' });
await cp(at('src/generated'), at('dist.new/generated'), { recursive: true, filter: (path) => !/(?<!\.d)\.ts$/.test(path) });
await writeFile(at('dist.new/circuitry.wasm'), component);
await writeFile(at('dist.new/circuitry.wasm.sha256'), `${digest}\n`);
await cp(at('../redis/src/swap.lua'), at('dist.new/swap.lua'));
for (const license of ['LICENSE-MIT', 'LICENSE-APACHE']) await cp(at(`../../${license}`), at(license));

await rm(at('dist.old'), { recursive: true, force: true });
if (existsSync(at('dist'))) await rename(at('dist'), at('dist.old'));
await rename(at('dist.new'), at('dist'));
await rm(at('dist.old'), { recursive: true, force: true });
