<<<<<<<< HEAD:ui/dist/assets/chunk-ZS472RW6.js
import{ea as t,s as n}from"/assets/chunk-VAJRTB7U.js";function p({to:i,children:e,...o}){return t("a",{href:i,...o,onClick:r=>{!r.metaKey&&!r.ctrlKey&&!r.shiftKey&&r.button===0&&(r.preventDefault(),n(i))},children:e})}export{p as a};
========
import{ca as t,s as n}from"/assets/chunk-NRSPCDXW.js";function p({to:i,children:e,...o}){return t("a",{href:i,...o,onClick:r=>{!r.metaKey&&!r.ctrlKey&&!r.shiftKey&&r.button===0&&(r.preventDefault(),n(i))},children:e})}export{p as a};
>>>>>>>> 7b760e9 (Accounts: groups of users and roles on vPools and backends, enforced per object):ui/dist/assets/chunk-7L36GR67.js
