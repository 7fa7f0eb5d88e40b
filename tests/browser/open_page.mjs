// Opens a page of `rramsim report --html` in headless Chromium and prints what a reader would see, as JSON.
// node open_page.mjs PAGE.html [SCREENSHOT.png]; needs playwright-core and @sparticuz/chromium of npm.
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";
const require = createRequire(process.env.BROWSER_MODULES + "/");
const { chromium } = require("playwright-core");
const packed = (await import(pathToFileURL(require.resolve("@sparticuz/chromium")))).default;
const browser = await chromium.launch({ args: packed.args, executablePath: await packed.executablePath(), headless: true });
const page = await browser.newPage({ viewport: { width: 1200, height: 900 } });
const said = [], asked = [];
page.on("console", (message) => said.push(`${message.type()}: ${message.text()}`));
page.on("pageerror", (error) => said.push(`error: ${error}`));
page.on("request", (request) => { if (!/^(file|data):/.test(request.url())) asked.push(request.url()); });
await page.goto(pathToFileURL(process.argv[2]).href);
const column = (table, index) => page.$$eval(`#${table} tbody tr`, (rows, k) => rows.map((row) => row.cells[k].textContent), index);
const before = await column("result", 1);
await page.click("#result th:nth-child(2) button");
const up = await column("result", 1);
await page.click("#result th:nth-child(2) button");
const down = await column("result", 1);
const visible = () => page.$$eval("#settings tbody tr", (rows) => rows.filter((row) => row.getClientRects().length).length);
const all = await visible();
await page.check("#changed");
const changed = await visible();
const figures = await page.$$eval("figure img", (images) => images.map((i) => [i.naturalWidth, i.getBoundingClientRect().width]));
if (process.argv[3]) await page.screenshot({ path: process.argv[3], fullPage: true });
console.log(JSON.stringify({ title: await page.title(), said, asked, before, up, down, all, changed, figures }));
await browser.close();
