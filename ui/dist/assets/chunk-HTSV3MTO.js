<<<<<<<< HEAD:ui/dist/assets/chunk-HTSV3MTO.js
import{a as o,ea as n}from"/assets/chunk-VAJRTB7U.js";function r({options:e,chosen:i,onChoose:s,textOf:p=t=>t.text}){return n(o,{children:e.map(t=>n("button",{type:"button",class:"btn small","aria-pressed":t===i,onClick:()=>s(t),children:p(t)},t.id))})}export{r as a};
========
import{a as o,ca as n}from"/assets/chunk-NRSPCDXW.js";function r({options:e,chosen:i,onChoose:s,textOf:p=t=>t.text}){return n(o,{children:e.map(t=>n("button",{type:"button",class:"btn small","aria-pressed":t===i,onClick:()=>s(t),children:p(t)},t.id))})}export{r as a};
>>>>>>>> 7b760e9 (Accounts: groups of users and roles on vPools and backends, enforced per object):ui/dist/assets/chunk-TSTY5AW7.js
