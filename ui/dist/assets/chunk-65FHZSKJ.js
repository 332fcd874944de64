<<<<<<<< HEAD:ui/dist/assets/chunk-65FHZSKJ.js
import{ea as s}from"/assets/chunk-VAJRTB7U.js";function l({labels:e}){let a=Object.entries(e);return a.length===0?s("span",{class:"muted",children:"none"}):s("span",{class:"row",children:a.map(([n,p])=>s("span",{class:"chip",children:p?`${n}=${p}`:n},n))})}export{l as a};
========
import{ca as s}from"/assets/chunk-NRSPCDXW.js";function l({labels:e}){let a=Object.entries(e);return a.length===0?s("span",{class:"muted",children:"none"}):s("span",{class:"row",children:a.map(([n,p])=>s("span",{class:"chip",children:p?`${n}=${p}`:n},n))})}export{l as a};
>>>>>>>> 7b760e9 (Accounts: groups of users and roles on vPools and backends, enforced per object):ui/dist/assets/chunk-T2BFNPU4.js
