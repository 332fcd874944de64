<<<<<<<< HEAD:ui/dist/assets/chunk-ATH3IWF5.js
import{i as m}from"/assets/chunk-VAJRTB7U.js";var a=["system","light","dark"],o="ovgate.theme";function n(){let e=localStorage.getItem(o);return a.find(s=>s===e)??"system"}var t=m(n());function c(e){t.value=e,localStorage.setItem(o,e),l()}function l(){t.value==="system"?delete document.documentElement.dataset.theme:document.documentElement.dataset.theme=t.value}export{a,t as b,c,l as d};
========
import{i as m}from"/assets/chunk-NRSPCDXW.js";var a=["system","light","dark"],o="ovgate.theme";function n(){let e=localStorage.getItem(o);return a.find(s=>s===e)??"system"}var t=m(n());function c(e){t.value=e,localStorage.setItem(o,e),l()}function l(){t.value==="system"?delete document.documentElement.dataset.theme:document.documentElement.dataset.theme=t.value}export{a,t as b,c,l as d};
>>>>>>>> 7b760e9 (Accounts: groups of users and roles on vPools and backends, enforced per object):ui/dist/assets/chunk-KZOZPLY5.js
